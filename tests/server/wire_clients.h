// Small clients of the ports that no generated stub speaks to.
#ifndef SVDSERVE_TESTS_SERVER_WIRE_CLIENTS_H_
#define SVDSERVE_TESTS_SERVER_WIRE_CLIENTS_H_

#include <grpcpp/channel.h>

#include <memory>
#include <string>

namespace svdserve {

// The whole answer of a Prometheus endpoint on 127.0.0.1, or "".
std::string Scrape(int port);

// The reflection service's raw answer to "which services are there?", or "".
std::string ListServices(const std::shared_ptr<grpc::Channel>& channel);

}  // namespace svdserve

#endif  // SVDSERVE_TESTS_SERVER_WIRE_CLIENTS_H_
