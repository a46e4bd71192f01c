// One EmbedStream call.
//
// Requests become work as they are read; answers are written in the order of
// the requests, whatever order the engine finishes them in. While the bound of
// inputs in flight is reached, nothing is read, and HTTP/2 flow control makes
// the client wait. The stream finishes exactly once: after the last answer if
// the client half-closed (OK) or the server drains (UNAVAILABLE), or, if the
// client went away, once the engine has let go of everything (CANCELLED).
//
// Thread-safe; owns itself until gRPC says that the call is done.
#ifndef SVDSERVE_SERVER_EMBED_STREAM_H_
#define SVDSERVE_SERVER_EMBED_STREAM_H_

#include <grpcpp/support/server_callback.h>

#include <deque>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/schedule/cancellation.h"
#include "server/call.h"
#include "svdserve/v1/svdserve.pb.h"

namespace svdserve {

class EmbedStream final
    : public grpc::ServerBidiReactor<v1::EmbedRequest, v1::EmbedResponse>,
      public DrainableStream,
      public std::enable_shared_from_this<EmbedStream> {
 public:
  // `environment` and `context` must outlive the call.
  static EmbedStream* Open(const CallEnvironment* environment,
                           grpc::CallbackServerContext* context);

  void StartDrain() override;

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  // The answer to one request: its place in the order.
  struct Answer {
    v1::EmbedResponse response;
    int inputs = 0;
    bool ready = false;
    absl::Time arrived;
  };

  EmbedStream(const CallEnvironment* environment,
              grpc::CallbackServerContext* context)
      : environment_(*environment),
        context_(context),
        request_context_(MakeRequestContext(*context, cancellation_)) {}

  void Submit(absl::StatusOr<Work> work, std::shared_ptr<Answer> answer);
  void Complete(const std::shared_ptr<Answer>& answer,
                const absl::Status& status, const Results& results);
  // Starts what can be started: a write, a read, or the finish.
  void Advance();
  bool MayFinish() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status FinalStatus() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const CallEnvironment& environment_;
  grpc::CallbackServerContext* const context_;
  CancellationSource cancellation_;
  const RequestContext request_context_;  // of all its requests: one flow
  std::shared_ptr<EmbedStream> self_;     // until OnDone()
  v1::EmbedRequest request_;              // belongs to the read in progress

  absl::Mutex mutex_;
  std::deque<std::shared_ptr<Answer>> answers_ ABSL_GUARDED_BY(mutex_);
  int inputs_in_flight_ ABSL_GUARDED_BY(mutex_) = 0;  // read, not yet written
  int unready_ ABSL_GUARDED_BY(mutex_) = 0;  // answers the engine still owes
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool half_closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;  // the client went away
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace svdserve

#endif  // SVDSERVE_SERVER_EMBED_STREAM_H_
