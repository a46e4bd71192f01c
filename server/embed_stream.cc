#include "server/embed_stream.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "server/status_util.h"

namespace svdserve {

EmbedStream* EmbedStream::Open(const CallEnvironment* environment,
                               grpc::CallbackServerContext* context) {
  const std::shared_ptr<EmbedStream> stream(
      new EmbedStream(environment, context));
  stream->self_ = stream;
  environment->calls->Opened();
  environment->calls->AddStream(stream);
  stream->Advance();
  return stream.get();
}

void EmbedStream::StartDrain() {
  {
    const absl::MutexLock lock(&mutex_);
    draining_ = true;
  }
  Advance();
}

void EmbedStream::OnReadDone(bool ok) {
  const auto keep = shared_from_this();
  std::shared_ptr<Answer> answer;
  {
    const absl::MutexLock lock(&mutex_);
    if (!ok) half_closed_ = true;
    if (!ok || draining_ || broken_ || finished_) {
      reading_ = false;
    } else {
      answer = std::make_shared<Answer>();
      answer->inputs = std::max(request_.inputs_size(), 1);
      answer->arrived = absl::Now();
      inputs_in_flight_ += answer->inputs;
      ++unready_;
      answers_.push_back(answer);
    }
  }
  if (answer != nullptr) {
    Submit(environment_.reader->Read(request_), answer);
    const absl::MutexLock lock(&mutex_);
    reading_ = false;
  }
  Advance();
}

// The stream's limits are Embed's: what is refused is answered in its place.
void EmbedStream::Submit(absl::StatusOr<Work> work,
                         std::shared_ptr<Answer> answer) {
  if (!work.ok()) {
    Complete(answer, work.status(), Results(answer->inputs, work.status()));
    return;
  }
  RunWork(environment_.engine, *std::move(work), request_context_,
          [self = shared_from_this(),
           answer = std::move(answer)](const Results& results) {
            self->Complete(answer, StatusOfAll(results), results);
            self->Advance();
          });
}

void EmbedStream::Complete(const std::shared_ptr<Answer>& answer,
                           const absl::Status& status, const Results& results) {
  FillEmbed(results, &answer->response);
  RecordAnswer(environment_, *context_, Method::kEmbedStream, status, results,
               answer->arrived);
  const absl::MutexLock lock(&mutex_);
  answer->ready = true;
  --unready_;
}

void EmbedStream::OnWriteDone(bool ok) {
  const auto keep = shared_from_this();
  {
    const absl::MutexLock lock(&mutex_);
    writing_ = false;
    if (!ok) broken_ = true;
    inputs_in_flight_ -= answers_.front()->inputs;
    answers_.pop_front();
  }
  Advance();
}

void EmbedStream::OnCancel() {
  const auto keep = shared_from_this();
  cancellation_.Cancel();
  {
    const absl::MutexLock lock(&mutex_);
    broken_ = true;
  }
  Advance();
}

void EmbedStream::OnDone() {
  OpenCalls* const calls = environment_.calls;
  // The last use of the environment: a drain may go on without this call.
  self_.reset();
  calls->Closed();
}

bool EmbedStream::MayFinish() const {
  if (finished_ || writing_) return false;
  if (broken_) return unready_ == 0;
  return answers_.empty() && !(reading_ && !draining_) &&
         (half_closed_ || draining_);
}

absl::Status EmbedStream::FinalStatus() const {
  if (broken_) return absl::CancelledError("the client went away");
  return half_closed_ ? absl::OkStatus() : DrainingError();
}

void EmbedStream::Advance() {
  absl::Status status;
  {
    const absl::MutexLock lock(&mutex_);
    const bool open = !broken_ && !finished_;
    if (open && !writing_ && !answers_.empty() && answers_.front()->ready) {
      writing_ = true;
      StartWrite(&answers_.front()->response);
    }
    if (open && !reading_ && !half_closed_ && !draining_ &&
        inputs_in_flight_ < environment_.stream_inputs_in_flight) {
      reading_ = true;
      StartRead(&request_);
    }
    if (!MayFinish()) return;
    finished_ = true;
    status = FinalStatus();
  }
  // Outside the lock: nothing of this object is touched after it.
  AddTrailers(*environment_.engine, status, context_);
  Finish(ToGrpcStatus(status));
}

}  // namespace svdserve
