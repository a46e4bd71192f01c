// The life of the process: exit codes, ports, signals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/e2e/server_process.h"

namespace svdserve {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr char kModel[] = "tests/golden/models/factored";

struct Failure {
  const char* name;
  std::vector<std::string> arguments;
  int exit;
  const char* message;
};

TEST(ProcessTest, ExitCodesAndMessagesTellWhatWasWrong) {
  const std::string unknown =
      WriteTempFile("unknown.yaml", "server:\n  lissten: a:1\n");
  const std::string range =
      WriteTempFile("range.yaml", "engine:\n  threads: -1\n");
  const std::vector<Failure> failures = {
      {"flag", {"--modle", "x"}, 64, "--modle"},
      {"no model", {}, 78, "pass --model DIR"},
      {"no file", {"--config", "no/such.yaml"}, 78, "no/such.yaml"},
      {"unknown key", {"--config", unknown}, 78, ".yaml:2: unknown key"},
      {"range", {"--config", range}, 78, "from 0 to 1024"},
      {"address", {"--model", kModel, "--listen", "here"}, 78, "host:port"},
      {"no such model", {"--model", "no/such"}, 66, "no/such"},
      {"not a model", {"--model", "tests/golden"}, 66, "config.json"},
  };
  for (const Failure& failure : failures) {
    ServerProcess server(failure.arguments);
    EXPECT_FALSE(server.AwaitReady()) << failure.name;
    EXPECT_EQ(server.AwaitExit(), failure.exit) << failure.name;
    EXPECT_THAT(server.Log(), HasSubstr(failure.message)) << failure.name;
  }
}

TEST(ProcessTest, PrintConfigShowsEverythingAndExits) {
  const std::string file = WriteTempFile("c.yaml", "engine:\n  threads: 7\n");
  ServerProcess server({"--config", file, "--model", "m", "--print-config"});
  EXPECT_FALSE(server.AwaitReady());
  EXPECT_EQ(server.AwaitExit(), 0);
  EXPECT_THAT(server.Log(), HasSubstr("\n  threads: 7\n"));
  EXPECT_THAT(server.Log(), HasSubstr("directory: \"m\"\n"));
  EXPECT_THAT(server.Log(), HasSubstr("queue_budget: 256MiB\n"));
}

TEST(ProcessTest, AnIdleServerDrainsOnEitherSignal) {
  for (const int signal : {SIGTERM, SIGINT}) {
    ServerProcess server({"--model", kModel});
    ASSERT_TRUE(server.AwaitReady()) << server.Log();
    server.Signal(signal);
    EXPECT_EQ(server.AwaitExit(), 0) << server.Log();
    EXPECT_THAT(server.Log(), HasSubstr("ranks="));
    EXPECT_THAT(server.Log(), HasSubstr("info drained"));
  }
}

// The same program runs where there is no driver.
TEST(ProcessTest, WithoutAGpuTheCpuServesAndTheLogSaysWhy) {
  ServerProcess server({"--model", kModel});
  ASSERT_TRUE(server.AwaitReady()) << server.Log();
  if (server.Log().find("backend=cuda") != std::string::npos) {
    GTEST_SKIP() << "there is a GPU";
  }
  EXPECT_THAT(server.Log(), HasSubstr("backend=cpu"));
  EXPECT_THAT(server.Log(),
              AnyOf(HasSubstr("reason=\"there is no NVIDIA driver"),
                    HasSubstr("reason=\"there is no NVIDIA GPU"),
                    HasSubstr("reason=\"this build has no CUDA backend")));

  const std::string file =
      WriteTempFile("cuda.yaml", "engine:\n  device: cuda\n");
  ServerProcess other({"--config", file, "--model", kModel});
  EXPECT_FALSE(other.AwaitReady());
  EXPECT_EQ(other.AwaitExit(), 66) << other.Log();
  EXPECT_THAT(other.Log(), HasSubstr("a GPU was asked for, but "));
}

TEST(ProcessTest, ASecondSignalEndsItAtOnce) {
  const std::string file = WriteTempFile("g.yaml", "drain:\n  grace: 10m\n");
  ServerProcess server({"--config", file, "--model", kModel});
  ASSERT_TRUE(server.AwaitReady()) << server.Log();
  server.Signal(SIGTERM);
  while (server.Log().find("draining") == std::string::npos) {
  }
  server.Signal(SIGTERM);
  EXPECT_EQ(server.AwaitExit(), -SIGTERM);
}

TEST(ProcessTest, ATakenPortIsAnErrorOfItsOwn) {
  ServerProcess first({"--model", kModel});
  ASSERT_TRUE(first.AwaitReady()) << first.Log();
  const std::string taken = absl::StrCat("127.0.0.1:", first.grpc_port());
  ServerProcess second({"--model", kModel, "--listen", taken});
  EXPECT_FALSE(second.AwaitReady());
  EXPECT_EQ(second.AwaitExit(), 69) << second.Log();
  EXPECT_THAT(second.Log(), HasSubstr("cannot listen on " + taken));
}

}  // namespace
}  // namespace svdserve
