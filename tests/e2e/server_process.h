// A real svdserve on free loopback ports, as a child process; or another
// program with its flags.
//
// The destructor ends the process, by its id, if it still runs.
//
//   ServerProcess server({"--model", directory});
//   ASSERT_TRUE(server.AwaitReady()) << server.Log();
//   server.Signal(SIGTERM);
//   EXPECT_EQ(server.AwaitExit(), 0);
#ifndef SVDSERVE_TESTS_E2E_SERVER_PROCESS_H_
#define SVDSERVE_TESTS_E2E_SERVER_PROCESS_H_

#include <sys/types.h>

#include <string>
#include <vector>

namespace svdserve {

// A new file under the tests' temporary directory.
std::string WriteTempFile(const std::string& name, const std::string& contents);

extern const char kSvdserve[];

class ServerProcess {
 public:
  // Listens on free ports unless the arguments say otherwise.
  explicit ServerProcess(std::vector<std::string> arguments,
                         const std::string& program = kSvdserve);
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  // False if the process ended instead.
  bool AwaitReady();
  void Signal(int signal);
  // The exit code, or -SIGNAL.
  int AwaitExit();

  int grpc_port() const { return grpc_port_; }
  int metrics_port() const { return metrics_port_; }
  // What it wrote to stdout and stderr.
  std::string Log() const;

 private:
  const std::string ports_file_;
  const std::string log_file_;
  pid_t pid_ = -1;
  int exit_ = 0;  // once pid_ is -1
  int grpc_port_ = 0;
  int metrics_port_ = 0;
};

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_E2E_SERVER_PROCESS_H_
