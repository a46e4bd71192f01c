#include "tests/e2e/server_process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace svdserve {
namespace {

constexpr absl::Duration kPollInterval = absl::Milliseconds(5);

std::string TempName(const std::string& name) {
  static std::atomic<int> count{0};
  return absl::StrCat(testing::TempDir(), "svdserve_", getpid(), "_", ++count,
                      "_", name);
}

int ExitOf(int status) {
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

bool Has(const std::vector<std::string>& arguments, const char* flag) {
  return std::find(arguments.begin(), arguments.end(), flag) != arguments.end();
}

pid_t Spawn(const std::string& program, std::vector<std::string> arguments,
            const std::string& log_file) {
  arguments.insert(arguments.begin(), program);
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, log_file.c_str(),
                                   O_WRONLY | O_CREAT | O_APPEND, 0600);
  posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
  pid_t pid = -1;
  const int error =
      posix_spawn(&pid, program.c_str(), &files, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  EXPECT_EQ(error, 0) << program;
  return error == 0 ? pid : -1;
}

}  // namespace

const char kSvdserve[] = SVDSERVE_BINARY;

std::string WriteTempFile(const std::string& name,
                          const std::string& contents) {
  std::string file = TempName(name);
  std::ofstream(file) << contents;
  return file;
}

ServerProcess::ServerProcess(std::vector<std::string> arguments,
                             const std::string& program)
    : ports_file_(TempName("ports")), log_file_(TempName("log")) {
  for (const char* flag : {"--listen", "--metrics-listen"}) {
    if (Has(arguments, flag)) continue;
    arguments.insert(arguments.end(), {flag, "127.0.0.1:0"});
  }
  arguments.insert(arguments.end(), {"--ports-file", ports_file_});
  pid_ = Spawn(program, std::move(arguments), log_file_);
}

ServerProcess::~ServerProcess() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    AwaitExit();
  }
  std::remove(ports_file_.c_str());
  std::remove(log_file_.c_str());
}

bool ServerProcess::AwaitReady() {
  while (pid_ > 0) {
    std::ifstream ports(ports_file_);
    std::string name;
    if (ports >> name >> grpc_port_ >> name >> metrics_port_) return true;
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      exit_ = ExitOf(status);
      pid_ = -1;
    }
    absl::SleepFor(kPollInterval);  // another process: no clock to inject
  }
  return false;
}

void ServerProcess::Signal(int signal) {
  if (pid_ > 0) kill(pid_, signal);
}

int ServerProcess::AwaitExit() {
  if (pid_ > 0) {
    int status = 0;
    waitpid(pid_, &status, 0);
    exit_ = ExitOf(status);
    pid_ = -1;
  }
  return exit_;
}

std::string ServerProcess::Log() const {
  std::ifstream log(log_file_);
  return {std::istreambuf_iterator<char>(log),
          std::istreambuf_iterator<char>()};
}

}  // namespace svdserve
