// What the calls of the service share: their surroundings, the way of a
// request through the engine, and the list of calls that are open.
#ifndef SVDSERVE_SERVER_CALL_H_
#define SVDSERVE_SERVER_CALL_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "engine/schedule/cancellation.h"
#include "server/metrics.h"
#include "server/request.h"
#include "server/response.h"

namespace svdserve {

// A stream that can be told to answer what it has read and to end.
class DrainableStream {
 public:
  virtual ~DrainableStream() = default;
  virtual void StartDrain() = 0;
};

// The calls that are open. Thread-safe.
class OpenCalls {
 public:
  explicit OpenCalls(Metrics* metrics) : metrics_(metrics) {}

  void Opened();
  void Closed();
  void AddStream(const std::shared_ptr<DrainableStream>& stream);

  // From here on draining() is true; open streams are told.
  void StartDrain();
  bool draining() const;
  // False if calls are still open at `deadline`.
  bool WaitUntilNone(absl::Time deadline);

 private:
  Metrics* const metrics_;
  mutable absl::Mutex mutex_;
  int open_ ABSL_GUARDED_BY(mutex_) = 0;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::weak_ptr<DrainableStream>> streams_ ABSL_GUARDED_BY(mutex_);
};

struct CallEnvironment {
  Engine* engine = nullptr;
  Metrics* metrics = nullptr;
  const RequestReader* reader = nullptr;
  OpenCalls* calls = nullptr;
  int stream_inputs_in_flight = 0;
};

// What the engine is told of a call: its deadline, its cancellation, and a flow
// that no other call has.
RequestContext MakeRequestContext(const grpc::CallbackServerContext& context,
                                  const CancellationSource& cancellation);

// Runs `done` once, after the last of the inputs was answered: on an engine
// thread, or inline if none had to wait.
void RunWork(Engine* engine, Work work, RequestContext context,
             absl::AnyInvocable<void(Results) &&> done);

// Counts an answered request and its inputs; logs it at level debug, and a
// fault of the server at level error.
void RecordAnswer(const CallEnvironment& environment,
                  const grpc::CallbackServerContext& context, Method method,
                  const absl::Status& status, const Results& results,
                  absl::Time arrived);

// Trailing metadata of a call that is about to finish: when to retry, and an
// ORCA report of the activation budget in use.
void AddTrailers(const Engine& engine, const absl::Status& status,
                 grpc::CallbackServerContext* context);

// The ORCA report, serialized.
std::string LoadReport(const EngineGauges& gauges);

absl::Status DrainingError();

// The trace id of W3C's `traceparent` metadata, or "".
std::string TraceId(const grpc::CallbackServerContext& context);

}  // namespace svdserve

#endif  // SVDSERVE_SERVER_CALL_H_
