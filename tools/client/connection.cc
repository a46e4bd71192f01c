#include "tools/client/connection.h"

#include <chrono>
#include <cstdio>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace svdserve {
namespace {

constexpr std::chrono::seconds kConnectPatience{5};

}  // namespace

void AddServerOptions(CLI::App* command, ServerOptions* options) {
  command->add_option("--server", options->address, "Address of the server")
      ->capture_default_str();
  command
      ->add_option("--timeout", options->timeout_seconds,
                   "Seconds that a call may take; 0 is no limit")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

std::shared_ptr<grpc::Channel> NewChannel(const std::string& address) {
  grpc::ChannelArguments arguments;
  // Replies are as large as the server makes them; refusals are to be seen.
  arguments.SetMaxReceiveMessageSize(std::numeric_limits<int>::max());
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(),
                                   arguments);
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(
    const ServerOptions& options) {
  std::shared_ptr<grpc::Channel> channel = NewChannel(options.address);
  const auto patience = std::chrono::system_clock::now() + kConnectPatience;
  grpc_connectivity_state state = channel->GetState(/*try_to_connect=*/true);
  while (state != GRPC_CHANNEL_READY) {
    if (state != GRPC_CHANNEL_TRANSIENT_FAILURE &&
        channel->WaitForStateChange(state, patience)) {
      state = channel->GetState(/*try_to_connect=*/true);
      continue;
    }
    return absl::UnavailableError(
        absl::StrCat("no server answers at ", options.address,
                     "; start one with `svdserve --model DIR`, or name its "
                     "address with --server HOST:PORT"));
  }
  return channel;
}

void SetDeadline(const ServerOptions& options, grpc::ClientContext* context) {
  if (options.timeout_seconds <= 0) return;
  context->set_deadline(std::chrono::system_clock::now() +
                        std::chrono::microseconds(static_cast<int64_t>(
                            options.timeout_seconds * 1e6)));
}

std::string CodeName(int code) {
  return absl::StatusCodeToString(static_cast<absl::StatusCode>(code));
}

int Fail(const std::string& what, const grpc::Status& status) {
  std::fprintf(stderr, "svdctl: %s: %s: %s\n", what.c_str(),
               CodeName(status.error_code()).c_str(),
               status.error_message().c_str());
  return 1;
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "svdctl: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace svdserve
