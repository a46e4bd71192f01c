// The ports: gRPC with the service, health and reflection, and the metrics
// exposer. It serves what an Engine that is ready can do.
//
//   auto server = Server::Start(config, engine.get(), &metrics);
//   ... (*server)->FollowHealth() now and then ...
//   bool all_answered = (*server)->Drain();
//
// Start, FollowHealth and Drain are for one thread. `engine` and `metrics` must
// outlive it.
#ifndef SVDSERVE_SERVER_SERVER_H_
#define SVDSERVE_SERVER_SERVER_H_

#include <grpcpp/server.h>

#include <memory>

#include "absl/status/statusor.h"
#include "server/config.h"
#include "server/encode_service.h"
#include "server/metrics.h"

namespace prometheus {
class Exposer;
}

namespace svdserve {

class Server {
 public:
  // UNAVAILABLE if an address could not be bound: the message names it. An
  // empty metrics address, which no file can set, leaves the exposer out: its
  // stopping takes two seconds, which most tests need not wait for.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const Config& config,
                                                       Engine* engine,
                                                       Metrics* metrics);
  ~Server();

  int grpc_port() const { return grpc_port_; }
  int metrics_port() const { return metrics_port_; }

  // Lets the health service say what the engine says of itself.
  void FollowHealth();

  // Health flips first; after the grace, new calls are refused; then everything
  // accepted is finished, by the engine with UNAVAILABLE once the bound is
  // reached. Returns whether all finished within the bound; calls are refused
  // until the server is destroyed or the process ends.
  bool Drain();

 private:
  Server(const Config& config, Engine* engine, Metrics* metrics);

  absl::Status StartGrpc();
  absl::Status StartMetrics();
  void SetServing(bool serving);

  const Config config_;
  Engine* const engine_;
  Metrics* const metrics_;
  EncodeService service_;
  int grpc_port_ = 0;
  int metrics_port_ = 0;
  bool serving_ = true;  // as health says
  std::unique_ptr<prometheus::Exposer> exposer_;
  std::unique_ptr<grpc::Server> grpc_;
};

}  // namespace svdserve

#endif  // SVDSERVE_SERVER_SERVER_H_
