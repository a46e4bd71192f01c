#include "engine/text/combining_run.h"

#include <array>

#include "engine/text/unicode.h"

namespace svdserve {

void CombiningRun::Clear() {
  items_.clear();
  sources_.clear();
}

void CombiningRun::Add(char32_t c, uint32_t source) {
  bool first = true;
  for (const char32_t d : unicode::Decompose(c)) {
    const bool mark = unicode::Properties(d) & unicode::kMark;
    items_.push_back({d, unicode::CombiningRank(d), first, mark, source});
    first = false;
  }
  sources_.push_back(source);
}

const std::vector<CombiningRun::Item>& CombiningRun::Order() {
  // A stable counting sort: the ranks fit a byte.
  std::array<uint32_t, 257> at{};
  for (const Item& item : items_) ++at[item.rank + 1];
  for (size_t rank = 1; rank < at.size(); ++rank) at[rank] += at[rank - 1];
  sorted_.resize(items_.size());
  for (const Item& item : items_) sorted_[at[item.rank]++] = item;

  size_t firsts = 0;
  for (Item& item : sorted_) {
    if (item.first) ++firsts;
    item.source = sources_[firsts == 0 ? 0 : firsts - 1];
  }
  return sorted_;
}

}  // namespace svdserve
