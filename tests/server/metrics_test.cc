#include "server/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "server/process_stats.h"
#include "tests/server/fake_engine.h"

namespace svdserve {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class MetricsTest : public ::testing::Test {
 protected:
  // Everything that can be counted, once.
  void CountEverything() {
    InputStats input;
    input.tokens = 7;
    input.activation_bytes = 70000;
    input.dense_activation_bytes = 700000;
    input.times = {absl::Microseconds(50), absl::Milliseconds(2),
                   absl::Milliseconds(30), absl::Milliseconds(32)};
    metrics_.OnInput(input);
    metrics_.OnRefusal(RefusalReason::kQueueBudget);
    metrics_.OnBatch({3, 21, 210000, 200000, 2100000, absl::Milliseconds(30)});
    metrics_.OnRequest(Method::kEmbed, absl::StatusCode::kOk,
                       absl::Milliseconds(33), 70000);
    metrics_.OnRequest(Method::kRerank, absl::StatusCode::kResourceExhausted,
                       absl::Microseconds(80), 0);
    metrics_.OnInputAnswered(Method::kEmbed, absl::StatusCode::kOk);
    metrics_.OnCallOpened();
  }
  void ExpectLine(const std::string& line) {
    EXPECT_THAT(metrics_.Text(), HasSubstr("\n" + line + "\n"));
  }

  FakeEngine engine_;
  Metrics metrics_;
};

TEST_F(MetricsTest, CountsAreLabelledByMethodAndStatus) {
  CountEverything();
  metrics_.OnRequest(Method::kEmbed, absl::StatusCode::kOk,
                     absl::Milliseconds(1), 0);
  ExpectLine("svdserve_requests_total{code=\"OK\",method=\"Embed\"} 2");
  ExpectLine(
      "svdserve_requests_total{code=\"RESOURCE_EXHAUSTED\",method=\"Rerank\"} "
      "1");
  ExpectLine("svdserve_inputs_total{code=\"OK\",method=\"Embed\"} 1");
  ExpectLine("svdserve_refusals_total{reason=\"queue_budget\"} 1");
  ExpectLine("svdserve_refusals_total{reason=\"draining\"} 0");
  ExpectLine("svdserve_open_calls 1");
}

TEST_F(MetricsTest, LatenciesAreInSecondsFrom100Microseconds) {
  CountEverything();
  ExpectLine(
      "svdserve_request_seconds_bucket{method=\"Rerank\",outcome=\"refused\","
      "le=\"0.0001\"} 1");
  ExpectLine(
      "svdserve_request_seconds_bucket{method=\"Embed\",outcome=\"ok\",le="
      "\"0.025\"} 0");
  ExpectLine(
      "svdserve_request_seconds_bucket{method=\"Embed\",outcome=\"ok\",le="
      "\"10\"} 1");
  ExpectLine("svdserve_input_seconds_sum{stage=\"queue\"} 0.002");
  ExpectLine("svdserve_input_seconds_count{stage=\"total\"} 1");
  ExpectLine("svdserve_batch_compute_seconds_sum 0.03");
}

TEST_F(MetricsTest, BytesArePlannedChargedAndDense) {
  CountEverything();
  ExpectLine("svdserve_batch_activation_bytes_sum{kind=\"planned\"} 200000");
  ExpectLine("svdserve_batch_activation_bytes_sum{kind=\"charged\"} 210000");
  ExpectLine("svdserve_batch_activation_bytes_sum{kind=\"dense\"} 2100000");
  ExpectLine("svdserve_activation_bytes_total 70000");
  ExpectLine("svdserve_dense_activation_bytes_total 700000");
  ExpectLine("svdserve_request_activation_bytes_sum 70000");
  ExpectLine("svdserve_tokens_total 7");
  ExpectLine("svdserve_batch_inputs_sum 3");
}

TEST_F(MetricsTest, GaugesAreTheEnginesWhileItIsFollowed) {
  EXPECT_THAT(metrics_.Text(), Not(HasSubstr("svdserve_arena")));
  metrics_.FollowEngine(&engine_);
  ExpectLine("svdserve_arena_budget_bytes 1000");
  ExpectLine("svdserve_healthy 1");
  EngineGauges gauges;
  gauges.arena_in_use_bytes = 1;
  gauges.arena_peak_bytes = 2;
  gauges.arena_touched_bytes = 9;
  gauges.queue_reserved_bytes = 3;
  gauges.queue_peak_bytes = 4;
  gauges.text_reserved_bytes = 5;
  gauges.queued_inputs = 6;
  gauges.healthy = false;
  gauges.devices = {{.weight_bytes = 11, .arena_bytes = 12, .other_bytes = 13},
                    {.in_service = false}};
  engine_.set_gauges(gauges);
  ExpectLine("svdserve_arena_in_use_bytes 1");
  ExpectLine("svdserve_arena_peak_bytes 2");
  ExpectLine("svdserve_arena_touched_bytes 9");
  ExpectLine("svdserve_queue_reserved_bytes 3");
  ExpectLine("svdserve_queue_peak_bytes 4");
  ExpectLine("svdserve_text_reserved_bytes 5");
  ExpectLine("svdserve_queued_inputs 6");
  ExpectLine("svdserve_healthy 0");
  ExpectLine("svdserve_device_memory_bytes{device=\"0\",kind=\"weights\"} 11");
  ExpectLine("svdserve_device_memory_bytes{device=\"0\",kind=\"arena\"} 12");
  ExpectLine("svdserve_device_memory_bytes{device=\"0\",kind=\"other\"} 13");
  ExpectLine("svdserve_device_in_service{device=\"0\"} 1");
  ExpectLine("svdserve_device_in_service{device=\"1\"} 0");
  ExpectLine("svdserve_weight_bytes{form=\"stored\"} 20");
  ExpectLine("svdserve_weight_bytes{form=\"dense_equivalent\"} 40");
  ExpectLine("svdserve_weight_bytes{form=\"packed\"} 30");
  EXPECT_THAT(metrics_.Text(), HasSubstr("svdserve_build_info{version="));
  metrics_.ForgetEngine();
  EXPECT_THAT(metrics_.Text(), Not(HasSubstr("svdserve_arena")));
}

TEST_F(MetricsTest, TheProcessIsMeasured) {
  const std::string text = metrics_.Text();
  const size_t at = text.find("\nprocess_resident_memory_bytes ");
  ASSERT_NE(at, std::string::npos);
  EXPECT_GT(std::atof(text.c_str() + at + 31), 1 << 20);
  EXPECT_THAT(text, HasSubstr("process_cpu_seconds_total"));
}

TEST_F(MetricsTest, TheHeapIsWhatIsAllocatedNow) {
  constexpr size_t kBytes = 64 << 20;
  const auto heap = [] { return ReadProcessStats().heap_bytes; };
  const uint64_t before = heap();
  if (before == 0) GTEST_SKIP() << "a sanitizer's allocator";
  void* volatile memory = std::malloc(kBytes);
  EXPECT_GE(heap(), before + kBytes);
  std::free(memory);
  EXPECT_LT(heap(), before + kBytes / 2);
}

TEST_F(MetricsTest, CountingIsThreadSafe) {
  constexpr int kTimes = 1000;
  const auto count = [&] {
    for (int i = 0; i < kTimes; ++i) {
      metrics_.OnRequest(Method::kEmbed, absl::StatusCode::kOk,
                         absl::Milliseconds(1), 1);
    }
  };
  std::thread other(count);
  count();
  other.join();
  ExpectLine(
      absl::StrCat("svdserve_requests_total{code=\"OK\",method=\"Embed"
                   "\"} ",
                   2 * kTimes));
}

TEST_F(MetricsTest, PromtoolFindsNothingToComplainAbout) {
  if (std::system("promtool --version >/dev/null 2>&1") != 0) {
    GTEST_SKIP() << "promtool (Debian package prometheus) is not installed";
  }
  CountEverything();
  metrics_.FollowEngine(&engine_);
  FILE* const promtool = popen("promtool check metrics 2>&1", "w");
  ASSERT_NE(promtool, nullptr);
  const std::string text = metrics_.Text();
  std::fwrite(text.data(), 1, text.size(), promtool);
  const int status = pclose(promtool);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0)
      << "promtool's complaints are above";
}

}  // namespace
}  // namespace svdserve
