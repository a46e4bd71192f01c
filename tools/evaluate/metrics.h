// How far a compressed model's outputs are from the dense model's, by the
// field's measures. Pure functions; the same arguments give the same bits.
#ifndef SVDSERVE_TOOLS_EVALUATE_METRICS_H_
#define SVDSERVE_TOOLS_EVALUATE_METRICS_H_

#include <cstdint>
#include <optional>
#include <vector>

namespace svdserve {

// One output a row: an embedding or logits.
struct Outputs {
  int width = 0;
  std::vector<float> values;  // [rows, width]

  int rows() const { return width == 0 ? 0 : values.size() / width; }
  const float* row(int i) const { return values.data() + int64_t{i} * width; }
};

// Cosine of each row of `a` with the same row of `b`, [rows]. Both have the
// same shape. 1 for two rows of zeros, 0 for one.
std::vector<double> RowCosines(const Outputs& a, const Outputs& b);

struct Distribution {
  double mean = 0;
  double min = 0;
  double p1 = 0;
  double p5 = 0;
  double p50 = 0;
};
// Of at least one value. A percentile between two values is interpolated, as
// NumPy does by default.
Distribution Summarize(std::vector<double> values);

// Bins of equal width; the last one holds `high` too.
struct Histogram {
  double low = 0;
  double high = 1;
  std::vector<int64_t> counts = {};  // [bins]
};
// Of cosines. It ends at 1 and begins at the round number (1 - 1, 2 or 5 times
// a power of ten) at or below the least, so that the bins are where the values
// are, be they at 0.5 or at 0.9999.
Histogram CosineHistogram(const std::vector<double>& cosines, int bins);

// Whether texts keep their nearest neighbours (by cosine; equals by index).
struct NeighbourAgreement {
  int queries = 0;  // texts whose neighbours were looked up, among all texts
  // Share of a text's k nearest of `dense` that are among its k nearest of
  // `compressed`, mean over the queries. None if there are not more than k
  // other texts: then every text is a neighbour.
  std::optional<double> recall_at_1;
  std::optional<double> recall_at_10;
};
// Looks up all rows, or a sample of `most_queries` of them.
NeighbourAgreement CompareNeighbours(const Outputs& dense,
                                     const Outputs& compressed,
                                     int most_queries, uint64_t seed);

// Spearman's rank correlation: Pearson's of the ranks, where equal values have
// the mean of their ranks. None if there are fewer than two values or one side
// has the same value throughout.
std::optional<double> Spearman(const std::vector<double>& a,
                               const std::vector<double>& b);

// Whether similarities of pairs of texts keep their order.
struct SimilarityAgreement {
  int64_t pairs = 0;
  bool sampled = false;  // not all pairs
  std::optional<double> spearman;
};
// All pairs of rows if they are at most `most_pairs`, or else so many drawn at
// random (a pair may be drawn twice): memory does not grow with the square.
SimilarityAgreement CompareSimilarities(const Outputs& dense,
                                        const Outputs& compressed,
                                        int64_t most_pairs, uint64_t seed);

struct LogitAgreement {
  // Share of texts with the same greatest logit (the first of equals); none if
  // there is only one.
  std::optional<double> argmax;
  // Spearman of the scores over the texts, if there is only one logit.
  std::optional<double> score_spearman;
  double mean_error = 0;  // of |dense - compressed|, over texts and labels
  double max_error = 0;
};
LogitAgreement CompareLogits(const Outputs& dense, const Outputs& compressed);

int ArgMax(const float* row, int width);
// max |a - b| over a row.
double MaxError(const float* a, const float* b, int width);

// Relative root mean square: sqrt(sum (a - b)² / sum a²) over any number of
// calls of Add(). 0 if nothing differs; infinite never: then it is none.
class RelativeError {
 public:
  void Add(const float* reference, const float* other, int64_t count);
  std::optional<double> value() const;

 private:
  double difference_ = 0;
  double reference_ = 0;
};

// `count` different numbers below `below`, ascending; all if there are fewer.
std::vector<int> Sample(int below, int count, uint64_t seed);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_EVALUATE_METRICS_H_
