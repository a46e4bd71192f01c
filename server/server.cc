#include "server/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>
#include <prometheus/exposer.h>

#include <algorithm>
#include <exception>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/log.h"

namespace svdserve {
namespace {

constexpr absl::Duration kDeadPeer = absl::Minutes(1);
constexpr absl::Duration kPeerAnswers = absl::Seconds(20);
constexpr absl::Duration kLeastPingInterval = absl::Seconds(1);
// For sending what the engine answered when the drain's bound was reached.
constexpr absl::Duration kLastSends = absl::Seconds(1);
// For calls that were on their way: they meet a refusal, not a closed port.
constexpr absl::Duration kLinger = absl::Milliseconds(500);

int Milliseconds(absl::Duration duration) {
  return static_cast<int>(absl::ToInt64Milliseconds(duration));
}

// gRPC's hard limit is twice ours: a request that is somewhat too large gets an
// error of ours that names the limit; a much larger one is cut off.
int HardMessageLimit(const Config& config) {
  return static_cast<int>(std::min<uint64_t>(2 * config.max_request_bytes,
                                             std::numeric_limits<int>::max()));
}

void SetLimits(const Config& config, grpc::ServerBuilder* builder) {
  grpc::ResourceQuota quota("svdserve");
  quota.Resize(config.grpc_memory_bytes);
  quota.SetMaxThreads(config.grpc_threads);
  builder->SetResourceQuota(quota);
  builder->SetMaxReceiveMessageSize(HardMessageLimit(config));
  builder->SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                              config.max_concurrent_streams);
  // Two servers on one port would share its connections at random.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder->AddChannelArgument(
      GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
      Milliseconds(kLeastPingInterval));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS,
                              Milliseconds(kDeadPeer));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                              Milliseconds(kPeerAnswers));
}

absl::Status CannotBind(const std::string& key, const std::string& address) {
  return absl::UnavailableError(absl::StrCat(
      key, ": cannot listen on ", address,
      "; is the port free and the address one of this machine's?"));
}

}  // namespace

Server::Server(const Config& config, Engine* engine, Metrics* metrics)
    : config_(config),
      engine_(engine),
      metrics_(metrics),
      service_(engine, metrics,
               {{config.max_request_bytes, config.max_inputs_per_request},
                config.stream_inputs_in_flight}) {}

Server::~Server() {
  metrics_->ForgetEngine();
  if (grpc_ != nullptr) grpc_->Shutdown(absl::ToChronoTime(absl::Now()));
}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const Config& config,
                                                      Engine* engine,
                                                      Metrics* metrics) {
  std::unique_ptr<Server> server(new Server(config, engine, metrics));
  metrics->FollowEngine(engine);
  absl::Status status = server->StartMetrics();
  if (status.ok()) status = server->StartGrpc();
  if (!status.ok()) return status;
  return server;
}

absl::Status Server::StartMetrics() {
  if (config_.metrics_listen.empty()) return absl::OkStatus();
  try {
    exposer_ = std::make_unique<prometheus::Exposer>(config_.metrics_listen,
                                                     config_.metrics_threads);
  } catch (const std::exception&) {  // civetweb's way to say it
    return CannotBind("metrics.listen", config_.metrics_listen);
  }
  exposer_->RegisterCollectable(metrics_->collectable());
  metrics_port_ = exposer_->GetListeningPorts().front();
  return absl::OkStatus();
}

absl::Status Server::StartGrpc() {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  SetLimits(config_, &builder);
  builder.AddListeningPort(config_.listen, grpc::InsecureServerCredentials(),
                           &grpc_port_);
  builder.RegisterService(&service_);
  grpc_ = builder.BuildAndStart();
  if (grpc_ == nullptr || grpc_port_ == 0) {
    return CannotBind("server.listen", config_.listen);
  }
  SetServing(engine_->Gauges().healthy);
  return absl::OkStatus();
}

void Server::SetServing(bool serving) {
  serving_ = serving;
  grpc::HealthCheckServiceInterface* const health =
      grpc_->GetHealthCheckService();
  health->SetServingStatus("", serving);
  health->SetServingStatus(v1::EncoderService::service_full_name(), serving);
}

void Server::FollowHealth() {
  const bool healthy = engine_->Gauges().healthy;
  if (healthy == serving_) return;
  Log(healthy ? LogLevel::kInfo : LogLevel::kError,
      healthy ? "engine recovered" : "engine is not healthy");
  SetServing(healthy);
}

bool Server::Drain() {
  SetServing(false);
  absl::SleepFor(config_.drain_grace);
  const absl::Time deadline = absl::Now() + config_.drain_timeout;
  service_.StartDrain();
  engine_->Drain(deadline);
  const bool in_time = absl::Now() < deadline;
  // The engine has answered everything; what is left is to send it.
  const bool all_sent =
      service_.WaitUntilIdle(std::max(deadline, absl::Now() + kLastSends));
  // gRPC's own shutdown would answer late calls with CANCELLED, which no client
  // retries; the end of the process closes their connections: UNAVAILABLE.
  absl::SleepFor(kLinger);
  return in_time && all_sent;
}

}  // namespace svdserve
