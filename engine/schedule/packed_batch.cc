#include "engine/schedule/packed_batch.h"

namespace svdserve {

void PackInto(absl::Span<const std::shared_ptr<InputTask>> tasks,
              PackedBatch* packed) {
  packed->ids.clear();
  packed->type_ids.clear();
  packed->cu_seqlens.clear();
  packed->options.clear();
  packed->cu_seqlens.push_back(0);
  for (const std::shared_ptr<InputTask>& task : tasks) {
    const TaskWork& work = task->work;
    packed->ids.insert(packed->ids.end(), work.ids.begin(), work.ids.end());
    packed->type_ids.insert(packed->type_ids.end(), work.type_ids.begin(),
                            work.type_ids.end());
    packed->type_ids.resize(packed->ids.size(), 0);  // if it gave none
    packed->cu_seqlens.push_back(packed->tokens());
    packed->options.push_back(work.output);
  }
}

}  // namespace svdserve
