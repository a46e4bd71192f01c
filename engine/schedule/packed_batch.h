// A closed batch as a backend wants it: flat, back to back, no padding.
//
//   PackedBatch packed;  // kept around: packing then allocates nothing
//   PackInto(batch.tasks, &packed);
#ifndef SVDSERVE_ENGINE_SCHEDULE_PACKED_BATCH_H_
#define SVDSERVE_ENGINE_SCHEDULE_PACKED_BATCH_H_

#include <memory>

#include "absl/types/span.h"
#include "engine/device/backend.h"
#include "engine/schedule/task.h"

namespace svdserve {

void PackInto(absl::Span<const std::shared_ptr<InputTask>> tasks,
              PackedBatch* packed);

}  // namespace svdserve

#endif  // SVDSERVE_ENGINE_SCHEDULE_PACKED_BATCH_H_
