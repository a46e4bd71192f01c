// How the client commands reach a server.
//
//   absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = Connect(options);
//   auto stub = v1::EncoderService::NewStub(*channel);
#ifndef SVDSERVE_TOOLS_CLIENT_CONNECTION_H_
#define SVDSERVE_TOOLS_CLIENT_CONNECTION_H_

#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace svdserve {

struct ServerOptions {
  std::string address = "127.0.0.1:50051";
  double timeout_seconds = 60;  // of one call; 0 is none
};

void AddServerOptions(CLI::App* command, ServerOptions* options);

// Waits a moment for the connection. UNAVAILABLE, with the address and a hint,
// at once if it is refused, or else when nothing answers.
absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(
    const ServerOptions& options);

// A channel with a connection of its own, without waiting for it.
std::shared_ptr<grpc::Channel> NewChannel(const std::string& address);

// Sets the deadline of a call that starts now.
void SetDeadline(const ServerOptions& options, grpc::ClientContext* context);

// "RESOURCE_EXHAUSTED" for 8.
std::string CodeName(int code);

// Prints "svdctl: WHAT: CODE: message" on stderr; returns the exit code 1.
int Fail(const std::string& what, const grpc::Status& status);
int Fail(const absl::Status& status);

}  // namespace svdserve

#endif  // SVDSERVE_TOOLS_CLIENT_CONNECTION_H_
