#include "tests/server/wire_clients.h"

#include <arpa/inet.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vector>

namespace svdserve {
namespace {

std::string ReadAll(int socket) {
  std::string all;
  char buffer[4096];
  for (ssize_t n; (n = read(socket, buffer, sizeof(buffer))) > 0;) {
    all.append(buffer, n);
  }
  return all;
}

std::string ToString(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

}  // namespace

std::string Scrape(int port) {
  const int connection = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const std::string request =
      "GET /metrics HTTP/1.0\r\nConnection: close\r\n\r\n";
  std::string answer;
  if (connect(connection, reinterpret_cast<sockaddr*>(&address),
              sizeof(address)) == 0 &&
      write(connection, request.data(), request.size()) == request.size()) {
    answer = ReadAll(connection);
  }
  close(connection);
  return answer;
}

std::string ListServices(const std::shared_ptr<grpc::Channel>& channel) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareCall(
      &context,
      "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  const auto succeeded = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  // Field 7 of ServerReflectionRequest, list_services = "*".
  const grpc::Slice bytes("\x3a\x01*");
  const grpc::ByteBuffer request(&bytes, 1);
  grpc::ByteBuffer response;
  grpc::Status status;
  call->StartCall(nullptr);
  bool ok = succeeded();
  if (ok) call->Write(request, nullptr);
  ok = ok && succeeded();
  if (ok) call->Read(&response, nullptr);
  ok = ok && succeeded();
  context.TryCancel();
  call->Finish(&status, nullptr);
  succeeded();
  queue.Shutdown();
  return ok ? ToString(response) : "";
}

}  // namespace svdserve
