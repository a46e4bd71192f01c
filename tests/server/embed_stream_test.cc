#include "server/embed_stream.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "tests/server/service_fixture.h"

namespace svdserve {
namespace {

using ::testing::HasSubstr;

class EmbedStreamTest : public ServiceFixture {
 protected:
  void Open() {
    context_ = std::make_unique<grpc::ClientContext>();
    stream_ = stub_->EmbedStream(context_.get());
  }
  bool Send(const std::vector<std::string>& texts) {
    return stream_->Write(EmbedOf(texts));
  }
  // The first value of each result of the next response, as a text.
  std::string Receive() {
    v1::EmbedResponse response;
    if (!stream_->Read(&response)) return "(end)";
    std::string values;
    for (const auto& result : response.results()) {
      values += result.has_embedding()
                    ? static_cast<char>(result.embedding().values(0))
                    : '!';
    }
    last_ = response;
    return values;
  }

  std::unique_ptr<grpc::ClientReaderWriter<v1::EmbedRequest, v1::EmbedResponse>>
      stream_;
  v1::EmbedResponse last_;
};

TEST_F(EmbedStreamTest, AnswersComeInOrderWhateverTheEngineFinishesFirst) {
  engine_->Hold();
  Open();
  ASSERT_TRUE(Send({"a", "b"}));
  ASSERT_TRUE(Send({"c"}));
  ASSERT_TRUE(Send({"d"}));
  engine_->AwaitHeld(4);
  auto held = engine_->TakeHeld();
  std::reverse(held.begin(), held.end());
  for (auto& submitted : held) engine_->Answer(std::move(submitted));
  EXPECT_EQ(Receive(), "ab");
  EXPECT_EQ(Receive(), "c");
  EXPECT_EQ(Receive(), "d");
  stream_->WritesDone();
  EXPECT_EQ(Receive(), "(end)");
  EXPECT_TRUE(stream_->Finish().ok());
}

TEST_F(EmbedStreamTest, AfterAHalfCloseEverythingIsAnswered) {
  engine_->Hold();
  Open();
  for (const char* text : {"a", "b", "c"}) ASSERT_TRUE(Send({text}));
  stream_->WritesDone();
  engine_->AwaitHeld(3);
  for (auto& submitted : engine_->TakeHeld()) {
    engine_->Answer(std::move(submitted));
  }
  for (const char* text : {"a", "b", "c"}) EXPECT_EQ(Receive(), text);
  EXPECT_EQ(Receive(), "(end)");
  EXPECT_TRUE(stream_->Finish().ok());
}

TEST_F(EmbedStreamTest, AnEmptyStreamEndsWell) {
  Open();
  stream_->WritesDone();
  EXPECT_EQ(Receive(), "(end)");
  EXPECT_TRUE(stream_->Finish().ok());
}

TEST_F(EmbedStreamTest, RefusalsAndWrongMessagesAreAnsweredInTheirPlace) {
  engine_->AnswerWith(
      [&](const Input& input,
          const InputOptions& options) -> absl::StatusOr<InputResult> {
        if (input.text == "full") return QueueFull(absl::Seconds(1));
        return engine_->AnswerTo(input, options);
      });
  Open();
  ASSERT_TRUE(Send({"full"}));
  ASSERT_TRUE(Send({}));
  ASSERT_TRUE(Send(std::vector<std::string>(513, "x")));
  ASSERT_TRUE(Send({"a"}));
  stream_->WritesDone();
  EXPECT_EQ(Receive(), "!");
  EXPECT_EQ(last_.results(0).error().code(), 8);
  EXPECT_EQ(last_.results(0).error().details_size(), 2);
  EXPECT_EQ(Receive(), "!");
  EXPECT_THAT(last_.results(0).error().message(), HasSubstr("is empty"));
  EXPECT_EQ(Receive(), std::string(513, '!'));
  EXPECT_THAT(last_.results(0).error().message(), HasSubstr("at most 512"));
  EXPECT_EQ(Receive(), "a");
  EXPECT_EQ(Receive(), "(end)");
  EXPECT_TRUE(stream_->Finish().ok());
}

TEST_F(EmbedStreamTest, NothingIsReadBeyondTheBound) {
  Config config;
  config.stream_inputs_in_flight = 4;
  Serve(Task::kEmbedding, 4, config);
  engine_->Hold();
  Open();
  std::thread writer([&] {
    for (int i = 0; i < 20; ++i) EXPECT_TRUE(Send({"a"}));
    stream_->WritesDone();
  });
  for (int answered = 0; answered < 20;) {
    engine_->AwaitHeld(1);
    auto held = engine_->TakeHeld();
    // What is held was read and is unanswered; the client may have answers
    // that it has not received yet, but the server counts them as in flight.
    EXPECT_LE(held.size(), 4);
    for (auto& submitted : held) {
      engine_->Answer(std::move(submitted));
      EXPECT_EQ(Receive(), "a");
      ++answered;
    }
    EXPECT_LE(engine_->submitted(), answered + 4);
  }
  writer.join();
  EXPECT_EQ(Receive(), "(end)");
  EXPECT_TRUE(stream_->Finish().ok());
}

TEST_F(EmbedStreamTest, CancellationStopsTheWork) {
  engine_->Hold();
  Open();
  ASSERT_TRUE(Send({"a", "b"}));
  engine_->AwaitHeld(2);
  context_->TryCancel();
  EXPECT_EQ(stream_->Finish().error_code(), grpc::StatusCode::CANCELLED);
  auto held = engine_->TakeHeld();
  const absl::Time limit = absl::Now() + absl::Seconds(30);
  while (!held[0].context.cancelled.cancelled() && absl::Now() < limit) {
    std::this_thread::yield();
  }
  EXPECT_TRUE(held[1].context.cancelled.cancelled());
  for (auto& submitted : held) {
    std::move(submitted.done)(absl::CancelledError("dropped"));
  }
  EXPECT_TRUE(server_->Drain()) << "the stream is gone";
}

TEST_F(EmbedStreamTest, ADrainAnswersWhatWasReadAndEndsTheStream) {
  engine_->Hold();
  Open();
  ASSERT_TRUE(Send({"a"}));
  ASSERT_TRUE(Send({"b"}));
  engine_->AwaitHeld(2);
  std::atomic<bool> in_time{false};
  std::thread drain([&] { in_time = server_->Drain(); });
  while (!engine_->draining()) std::this_thread::yield();
  for (auto& submitted : engine_->TakeHeld()) {
    engine_->Answer(std::move(submitted));
  }
  EXPECT_EQ(Receive(), "a");
  EXPECT_EQ(Receive(), "b");
  EXPECT_EQ(Receive(), "(end)");
  EXPECT_EQ(stream_->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  drain.join();
  EXPECT_TRUE(in_time);
}

TEST_F(EmbedStreamTest, ADrainEndsAnIdleStream) {
  Open();
  ASSERT_TRUE(Send({"a"}));
  EXPECT_EQ(Receive(), "a");
  EXPECT_TRUE(server_->Drain());
  EXPECT_EQ(Receive(), "(end)");
  const grpc::Status status = stream_->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("shutting down"));
}

}  // namespace
}  // namespace svdserve
