// The smallest ratio that loses no more than a target, in as few compressions
// as can be.
//
//   RatioSearch search(target, 5, predicted);
//   while (std::optional<int> hundredths = search.Next()) {
//     search.Measured(*hundredths, <the error at that ratio>);
//   }
//   search.Found();
#ifndef SVDSERVE_TOOLS_COMPRESS_RATIO_SEARCH_H_
#define SVDSERVE_TOOLS_COMPRESS_RATIO_SEARCH_H_

#include <optional>
#include <vector>

namespace svdserve {

// Errors are taken to fall as the ratio grows. The predicted losses say how
// they do; every measurement says how far from them errors are thereabouts: the
// factor between the two, its logarithm linear through two measurements (regula
// falsi, the secant as long as all fall on one side). After a few guesses that
// did not close in, halving does.
class RatioSearch {
 public:
  // `predicted[i]`: the loss that is expected at a ratio of `first + i`
  // hundredths.
  RatioSearch(double target, int first, std::vector<double> predicted);

  // The ratio to measure next; none when the smallest is known.
  std::optional<int> Next() const;
  void Measured(int hundredths, double error);
  // The smallest ratio measured to keep to the target; none if the largest one
  // does not.
  std::optional<int> Found() const;

 private:
  struct Measurement {
    int hundredths;
    double log_factor;  // of the measured error to the predicted
  };
  double Predicted(int hundredths) const;
  double Expected(int hundredths) const;
  int last() const { return first_ + static_cast<int>(predicted_.size()) - 1; }

  double target_;
  int first_;
  std::vector<double> predicted_;
  int attempts_ = 0;
  std::optional<Measurement> misses_;  // the largest ratio that does
  std::optional<Measurement> keeps_;   // the smallest ratio that does
  std::optional<Measurement> before_;  // that `misses_` or `keeps_` replaced
};

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_COMPRESS_RATIO_SEARCH_H_
