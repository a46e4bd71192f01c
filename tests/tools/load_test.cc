// The load generator: its schedule, texts and numbers, and a run against a
// server that answers by a script.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "svdserve/v1/svdserve.grpc.pb.h"
#include "tools/load/lengths.h"
#include "tools/load/runner.h"
#include "tools/load/schedule.h"
#include "tools/load/summary.h"

namespace svdserve {
namespace {

using ::testing::HasSubstr;

int Words(const std::string& text) {
  return 1 + static_cast<int>(std::count(text.begin(), text.end(), ' '));
}

TEST(ArrivalScheduleTest, UniformGapsDoNotDrift) {
  ArrivalSchedule schedule(Arrivals::kUniform, 3, 1);
  for (int i = 0; i < 3000; ++i) schedule.Next();
  EXPECT_DOUBLE_EQ(schedule.Next(), 1000);
}

TEST(ArrivalScheduleTest, PoissonHasItsRateAndItsSpread) {
  constexpr int kArrivals = 100'000;
  ArrivalSchedule schedule(Arrivals::kPoisson, 50, 7);
  double last = 0;
  double squares = 0;
  for (int i = 0; i < kArrivals; ++i) {
    const double now = schedule.Next();
    ASSERT_GE(now, last);
    squares += (now - last) * (now - last);
    last = now;
  }
  EXPECT_NEAR(kArrivals / last, 50, 1);
  // The mean square of an exponential gap is twice the square of its mean.
  EXPECT_NEAR(squares / kArrivals, 2.0 / (50 * 50), 0.1 / (50 * 50));
}

TEST(ArrivalScheduleTest, TheSeedDecidesTheTimes) {
  ArrivalSchedule one(Arrivals::kPoisson, 50, 7);
  ArrivalSchedule same(Arrivals::kPoisson, 50, 7);
  ArrivalSchedule other(Arrivals::kPoisson, 50, 8);
  const double first = one.Next();
  EXPECT_EQ(first, same.Next());
  EXPECT_NE(first, other.Next());
}

TEST(TextSourceTest, CountsSpecialTokensAndIsNeverEmpty) {
  Random random(1);
  EXPECT_EQ(Words(TextOfLength(128, random)), 126);
  EXPECT_EQ(Words(TextOfLength(3, random)), 1);
  EXPECT_EQ(Words(TextOfLength(1, random)), 1);
}

TEST(TextSourceTest, UniformLengthsReachBothEnds) {
  absl::StatusOr<TextSource> source = TextSource::Parse("uniform:3-6");
  ASSERT_TRUE(source.ok()) << source.status();
  Random random(1);
  std::vector<int> seen(6);
  for (int i = 0; i < 1000; ++i) ++seen.at(Words(source->Next(random)));
  EXPECT_EQ(seen[0], 0);
  for (int words = 1; words <= 4; ++words) EXPECT_GT(seen[words], 200);
  EXPECT_EQ(seen[5], 0);
}

TEST(TextSourceTest, RepeatsTheLinesOfAFile) {
  const std::string path = ::testing::TempDir() + "/texts.txt";
  std::ofstream(path) << "one\n\ntwo\n";
  absl::StatusOr<TextSource> source = TextSource::Parse("file:" + path);
  ASSERT_TRUE(source.ok()) << source.status();
  Random random(1);
  EXPECT_EQ(source->lines(), 2u);
  EXPECT_EQ(source->Next(random), "one");
  EXPECT_EQ(source->Next(random), "two");
  EXPECT_EQ(source->Next(random), "one");
}

TEST(TextSourceTest, RefusesWhatIsNoDistribution) {
  for (const char* wrong :
       {"", "fixed", "fixed:", "fixed:0", "fixed:x", "uniform:5", "uniform:9-3",
        "uniform:0-3", "normal:1-2", "file:/nonexistent"}) {
    EXPECT_FALSE(TextSource::Parse(wrong).ok()) << wrong;
  }
  EXPECT_THAT(TextSource::Parse("fixed:x").status().message(),
              HasSubstr("expected fixed:N"));
}

TEST(PercentileTest, IsTheNearestRank) {
  std::vector<double> values;
  for (int i = 1; i <= 1000; ++i) values.push_back(i);
  EXPECT_EQ(Percentile(values, 0.5), 500);
  EXPECT_EQ(Percentile(values, 0.99), 990);
  EXPECT_EQ(Percentile(values, 0.999), 999);
  EXPECT_EQ(Percentile({7}, 0.5), 7);
  EXPECT_EQ(Percentile({}, 0.5), 0);
}

TEST(SummaryTest, LeavesTheWarmUpOutAndCountsByStatus) {
  const std::vector<LoadSample> samples = {
      {.intended_seconds = 0.5, .latency_seconds = 9, .inputs = 1, .tokens = 9},
      {.intended_seconds = 1.0, .latency_seconds = 1, .inputs = 2, .tokens = 8},
      {.intended_seconds = 2.0, .latency_seconds = 3, .inputs = 2, .tokens = 8},
      {.code = 8, .intended_seconds = 2.5, .latency_seconds = 0.1}};
  const LoadSummary summary = Summarize(samples, {.warmup_seconds = 1,
                                                  .measured_seconds = 2,
                                                  .client_cpu_seconds = 1,
                                                  .cores = 4});
  EXPECT_EQ(summary.requests, 3u);
  EXPECT_DOUBLE_EQ(summary.sent_rate, 1.5);
  EXPECT_DOUBLE_EQ(summary.ok_rate, 1);
  EXPECT_DOUBLE_EQ(summary.inputs_rate, 2);
  EXPECT_DOUBLE_EQ(summary.tokens_rate, 8);
  EXPECT_DOUBLE_EQ(summary.client_cpu_share, 0.125);
  EXPECT_EQ(summary.by_code.at(0).latency.max, 3);
  EXPECT_EQ(summary.by_code.at(8).requests, 1u);
  const nlohmann::ordered_json json = ToJson(summary);
  EXPECT_EQ(json["by_status"]["RESOURCE_EXHAUSTED"]["requests"], 1);
  EXPECT_THAT(ToText(summary), HasSubstr("RESOURCE_EXHAUSTED"));
}

TEST(SummaryTest, TellsWhereTheTimeWent) {
  const LoadStages stages = {
      .tokenization = 1, .queue = 2, .compute = 4, .server = 8};
  const LoadSummary summary =
      Summarize({{.latency_seconds = 10, .inputs = 1, .stages = stages},
                 {.code = 8, .latency_seconds = 0.1}},
                {.measured_seconds = 2});
  const nlohmann::ordered_json json = ToJson(summary)["stages_seconds"];
  EXPECT_EQ(json["tokenization"]["p50"], 1);
  EXPECT_EQ(json["queue"]["max"], 2);
  EXPECT_EQ(json["compute"]["p99"], 4);
  EXPECT_EQ(json["outside_server"]["p50"], 2);
  EXPECT_THAT(ToText(summary), HasSubstr("  outside_server"));
}

// Answers after `delay`; every `refuse_every`-th call is refused.
class ScriptedService : public v1::EncoderService::Service {
 public:
  grpc::Status Embed(grpc::ServerContext*, const v1::EmbedRequest* request,
                     v1::EmbedResponse* response) override {
    const int number = ++calls_;
    const int now = ++running_;
    {
      absl::MutexLock lock(&mutex_);
      most_running_ = std::max(most_running_, now);
      // Holds calls back until the test lets them go.
      mutex_.Await(absl::Condition(&open_));
    }
    --running_;
    if (refuse_every_ > 0 && number % refuse_every_ == 0) {
      return {grpc::StatusCode::RESOURCE_EXHAUSTED, "full"};
    }
    for (int i = 0; i < request->inputs_size(); ++i) {
      v1::Embedding* embedding = response->add_results()->mutable_embedding();
      embedding->mutable_usage()->set_tokens(10);
    }
    return grpc::Status::OK;
  }

  void set_refuse_every(int n) { refuse_every_ = n; }
  void Close() {
    absl::MutexLock lock(&mutex_);
    open_ = false;
  }
  void Open() {
    absl::MutexLock lock(&mutex_);
    open_ = true;
  }
  int most_running() {
    absl::MutexLock lock(&mutex_);
    return most_running_;
  }

 private:
  int refuse_every_ = 0;
  std::atomic<int> calls_{0};
  std::atomic<int> running_{0};
  absl::Mutex mutex_;
  bool open_ = true;
  int most_running_ = 0;
};

class LoadRunTest : public ::testing::Test {
 protected:
  LoadRunTest() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port_);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    options_.server.address = absl::StrCat("127.0.0.1:", port_);
    options_.lengths = "fixed:4";
    options_.arrivals = Arrivals::kUniform;
    options_.duration_seconds = 0.3;
    options_.rate = 100;
  }

  LoadSummary Run() {
    absl::StatusOr<LoadResult> result = RunLoad(options_);
    EXPECT_TRUE(result.ok()) << result.status();
    if (!result.ok()) return {};
    return Summarize(result->samples, result->run);
  }

  int port_ = 0;
  ScriptedService service_;
  std::unique_ptr<grpc::Server> server_;
  LoadOptions options_;
};

TEST_F(LoadRunTest, SendsEveryArrivalAndCountsEachStatus) {
  service_.set_refuse_every(3);
  options_.inputs_per_request = 2;
  const LoadSummary summary = Run();
  EXPECT_EQ(summary.requests, 30u);
  EXPECT_EQ(summary.by_code.at(0).requests, 20u);
  EXPECT_EQ(summary.by_code.at(8).requests, 10u);
  EXPECT_NEAR(summary.tokens_rate, 20 * 2 * 10 / 0.3, 1e-6);
  EXPECT_EQ(summary.run.limited, 0u);
}

TEST_F(LoadRunTest, AStallCountsForEveryArrivalInIt) {
  service_.Close();
  options_.max_in_flight = 1;
  std::thread opener([this] {
    // Long enough for all arrivals but the first to be overdue.
    absl::SleepFor(absl::Milliseconds(400));
    service_.Open();
  });
  const LoadSummary summary = Run();
  opener.join();
  EXPECT_EQ(summary.requests, 30u);
  // Sent late, but counted from when they should have been: the median arrival
  // was due at 150 ms.
  EXPECT_GT(summary.by_code.at(0).latency.p50, 0.2);
  EXPECT_GT(summary.run.limited, 0u);
  EXPECT_GT(summary.run.worst_lag_seconds, 0.3);
  EXPECT_EQ(service_.most_running(), 1);
}

TEST_F(LoadRunTest, SaturatingKeepsTheSameNumberInFlight) {
  options_.rate = 0;
  options_.saturate = 3;
  const LoadSummary summary = Run();
  EXPECT_GT(summary.requests, 3u);
  EXPECT_LE(service_.most_running(), 3 + 1);
  EXPECT_EQ(summary.run.limited, 0u);
}

TEST_F(LoadRunTest, SaysThatNoServerAnswers) {
  server_->Shutdown();
  const absl::StatusOr<LoadResult> result = RunLoad(options_);
  EXPECT_THAT(result.status().message(), HasSubstr("no server answers at"));
}

}  // namespace
}  // namespace svdserve
