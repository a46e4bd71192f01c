// Request and response of a call in one protobuf arena: a response has eight
// messages for each input, which then cost no allocation, nor their end a
// release, each.
//
//   ArenaMessages<v1::EmbedRequest, v1::EmbedResponse> messages;
//   service.SetMessageAllocatorFor_Embed(&messages);
#ifndef SVDSERVE_SERVER_ARENA_MESSAGES_H_
#define SVDSERVE_SERVER_ARENA_MESSAGES_H_

#include <google/protobuf/arena.h>
#include <grpcpp/support/message_allocator.h>

namespace svdserve {

// Thread-safe; must outlive the server that its service is registered with.
template <typename Request, typename Response>
class ArenaMessages final : public grpc::MessageAllocator<Request, Response> {
 public:
  grpc::MessageHolder<Request, Response>* AllocateMessages() override {
    return new Holder;
  }

 private:
  // Lives until gRPC releases it at the end of the call.
  class Holder final : public grpc::MessageHolder<Request, Response> {
   public:
    Holder() {
      using google::protobuf::Arena;
      this->set_request(Arena::CreateMessage<Request>(&arena_));
      this->set_response(Arena::CreateMessage<Response>(&arena_));
    }
    void Release() override { delete this; }

   private:
    google::protobuf::Arena arena_{Options()};
  };

  // From what a single input takes to what many do.
  static google::protobuf::ArenaOptions Options() {
    google::protobuf::ArenaOptions options;
    options.start_block_size = 4096;
    options.max_block_size = 64 << 10;
    return options;
  }
};

}  // namespace svdserve

#endif  // SVDSERVE_SERVER_ARENA_MESSAGES_H_
