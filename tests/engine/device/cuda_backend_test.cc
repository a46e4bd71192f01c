// The CUDA backend as a whole: same input, same bits, whatever the batch and
// the plan; what is touched is what was planned; graphs and slots. Emulated
// here, on a GPU with tests/gpu.
#include <algorithm>
#include <array>
#include <random>
#include <string>
#include <vector>

#include "engine/plan/bucket.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/device/cuda_fixture.h"
#include "tests/engine/device/faulty_runtime.h"
#include "tests/engine/device/random_model.h"

namespace svdserve {
namespace {

using ::testing::HasSubstr;

constexpr std::byte kPoison{0xa5};

const std::vector<int> kLengths = {1, 16, 17, 64, 3, 33, 48, 15};

// Layers that the fused kernels take, with odd ranks; dense and mixed ones;
// heads of other widths, which fused attention takes if all are as wide.
Model VariedModel() {
  return RandomModel({.layers = {{32, 17, 24, 40, 32, 29},
                                 {},
                                 {17, 0, 33, 0, 31, 0},
                                 {32, 17, 24, 40, 32, 29, 64, 64},
                                 {24, 16, 33, 40, 31, 29, 16, 48}},
                      .head_widths = {48}});
}

std::string NameOf(const ::testing::TestParamInfo<ComputeType>& info) {
  return info.param == ComputeType::kBF16 ? "bf16" : "f16";
}
const auto kTypes = ::testing::Values(ComputeType::kBF16, ComputeType::kF16);

// ---- Same bits ----

class CudaInvarianceTest : public ::testing::TestWithParam<ComputeType> {
 protected:
  void SetUp() override {
    ASSERT_TRUE(backend_.status().ok()) << backend_.status();
    std::mt19937 random(11);
    inputs_ = RandomInputs(random, kLengths);
    together_ = backend_.Run(BatchOf(inputs_));
  }

  const Model model_ = VariedModel();
  PoisonedCuda backend_{model_, {.compute = GetParam()}};
  std::vector<std::vector<int32_t>> inputs_;
  Rows together_;
};

TEST_P(CudaInvarianceTest, AloneAndInABatch) {
  for (int i = 0; i < inputs_.size(); ++i) {
    EXPECT_EQ(backend_.Run(BatchOf({inputs_[i]}))[0], together_[i])
        << "length " << kLengths[i];
  }
}

TEST_P(CudaInvarianceTest, InAnotherOrderWithOtherCompanions) {
  std::mt19937 random(12);
  std::vector<int> order = {0, 1, 2, 3, 4, 5, 6, 7};
  for (int count : {3, 5, 7}) {
    std::shuffle(order.begin(), order.end(), random);
    std::vector<std::vector<int32_t>> shuffled;
    for (int i = 0; i < count; ++i) shuffled.push_back(inputs_[order[i]]);
    const Rows rows = backend_.Run(BatchOf(shuffled));
    for (int i = 0; i < count; ++i) EXPECT_EQ(rows[i], together_[order[i]]);
  }
}

TEST_P(CudaInvarianceTest, InEveryWayAndChunksOfEverySize) {
  const PackedBatch batch = BatchOf(inputs_);
  for (const bool fused : {false, true}) {
    for (const int rows : {64, 80, 512}) {
      for (const int heads : {1, 3, 4}) {
        if (fused && heads > 1) continue;
        const Plan plan = backend_.planner().MakePlanWith(
            batch.Shape(), {.rows = rows, .heads = heads, .fused = fused},
            {.rows = rows / 2 + 3, .fused = fused});
        ASSERT_LE(plan.peak_bytes, backend_->info().arena_bytes);
        ASSERT_EQ(plan.steps[1].way == Way::kFactoredFused, fused);
        ASSERT_EQ(plan.steps[2].way == Way::kFactoredFused, fused);
        ASSERT_EQ(plan.steps[7].way == Way::kFactoredFused, fused);
        ASSERT_EQ(plan.steps[9].way, Way::kFactored);
        ASSERT_EQ(backend_.Run(plan, batch), together_) << plan.ToString();
      }
    }
  }
}

// Chunks between products of all rows; the second factor narrower, or wider.
TEST_P(CudaInvarianceTest, FeedForwardWithWholeEnds) {
  const Model model = RandomModel({.layers = {{32, 17, 24, 40, 48, 29},
                                              {32, 17, 24, 40, 16, 64},
                                              {32, 17, 24, 40, 32, 0}}});
  PoisonedCuda backend(model, {.compute = GetParam()});
  ASSERT_TRUE(backend.status().ok()) << backend.status();
  const PackedBatch batch = BatchOf(inputs_);
  const auto plan = [&](int rows, int rows_at_ends) {
    return backend.planner().MakePlanWith(
        batch.Shape(), {.rows = 512},
        {.rows = rows, .rows_at_ends = rows_at_ends});
  };
  const Rows expected = backend.Run(plan(512, 0), batch);
  for (const int rows : {1, 37, 64, 128}) {
    const Plan ends = plan(rows, 1);
    ASSERT_EQ(ends.steps[2].rows_at_ends, ends.shape.tokens);
    ASSERT_EQ(ends.steps[4].rows_at_ends, ends.shape.tokens);
    ASSERT_EQ(ends.steps[6].rows_at_ends, 0);  // a dense matrix has no ends
    EXPECT_EQ(backend.Run(ends, batch), expected) << rows;
  }
}

// Of other widths than VariedModel() has, and on some GPUs alone.
TEST_P(CudaInvarianceTest, FeedForwardByOneKernel) {
  const Model model = RandomModel({.heads = 12,
                                   .head_dim = 32,
                                   .layers = {{32, 32, 32, 32, 160, 143},
                                              {32, 32, 32, 32, 40, 160},
                                              {32, 32, 32, 32, 0, 160}}});
  PoisonedCuda backend(model, {.compute = GetParam()});
  ASSERT_TRUE(backend.status().ok()) << backend.status();
  if (!backend->target().fusion[0].feed_forward_whole) {
    GTEST_SKIP() << "no such kernel here";
  }
  const PackedBatch batch = BatchOf(inputs_);
  const auto plan = [&](int rows, bool whole) {
    return backend.planner().MakePlanWith(batch.Shape(), {.rows = 512},
                                          {.rows = rows, .whole = whole});
  };
  const Rows expected = backend.Run(plan(512, false), batch);
  for (const int rows : {37, 128, 512}) {
    const Plan whole = plan(rows, true);
    ASSERT_EQ(whole.steps[2].way, Way::kFactoredWhole);
    ASSERT_EQ(whole.steps[4].way, Way::kFactoredWhole);
    ASSERT_EQ(whole.steps[6].way, Way::kMixed);
    EXPECT_EQ(backend.Run(whole, batch), expected) << rows;
  }
}

TEST_P(CudaInvarianceTest, WithMemoryForTheUpdate) {
  const PackedBatch batch = BatchOf(inputs_);
  ASSERT_GT(backend_->target().update_rows, 0);
  for (const bool fused : {false, true}) {
    for (const int rows : {64, 256}) {
      const Chunking chunks = {.rows = rows, .fused = fused, .update = true};
      const Plan plan =
          backend_.planner().MakePlanWith(batch.Shape(), chunks, chunks);
      ASSERT_LE(plan.peak_bytes, backend_->info().arena_bytes);
      for (int step = 1; step <= 10; ++step) {
        ASSERT_NE(plan.Find(plan.steps[step], Role::kUpdate), nullptr);
      }
      ASSERT_EQ(backend_.Run(plan, batch), together_) << plan.ToString();
    }
  }
}

TEST_P(CudaInvarianceTest, InTheSmallestArena) {
  PoisonedCuda small(model_,
                     {.compute = GetParam(),
                      .arena_bytes = backend_.planner().MinimumArenaBytes()});
  ASSERT_TRUE(small.status().ok()) << small.status();
  for (int i = 0; i < inputs_.size(); ++i) {
    EXPECT_EQ(small.Run(BatchOf({inputs_[i]}))[0], together_[i]);
  }
}

TEST_P(CudaInvarianceTest, TwoBatchesUnderWayAtOnce) {
  const PackedBatch first = BatchOf({inputs_[0], inputs_[3]});
  const PackedBatch second = BatchOf({inputs_[5]});
  const auto first_plan = backend_.planner().MakePlan(first.Shape());
  const auto second_plan = backend_.planner().MakePlan(second.Shape());
  ASSERT_TRUE(backend_->Launch(0, *first_plan, first).ok());
  ASSERT_TRUE(backend_->Launch(1, *second_plan, second).ok());
  EXPECT_EQ(backend_.Collect(0), Rows({together_[0], together_[3]}));
  ASSERT_TRUE(backend_->Launch(0, *second_plan, second).ok());
  EXPECT_EQ(backend_.Collect(1), Rows({together_[5]}));
  EXPECT_EQ(backend_.Collect(0), Rows({together_[5]}));
}

INSTANTIATE_TEST_SUITE_P(Types, CudaInvarianceTest, kTypes, NameOf);

// ---- The arena ----

class CudaArenaTest : public ::testing::Test {
 protected:
  explicit CudaArenaTest(Model model = VariedModel())
      : model_(std::move(model)) {}

  PackedBatch RandomBatch(int most) {
    const auto pick = [&](int low, int high) {
      return std::uniform_int_distribution<int>(low, high)(random_);
    };
    std::vector<int> lengths(pick(1, most));
    for (int& length : lengths) length = pick(1, 64);
    return BatchOf(RandomInputs(random_, lengths));
  }

  // First by single launches, then by a graph where the plan has one.
  void ExpectTouchesWhatWasPlanned(const Plan& plan, const PackedBatch& batch) {
    for (int run = 0; run < 2; ++run) {
      ASSERT_NO_FATAL_FAILURE(RunPoisoned(plan, batch));
    }
  }

  // Nothing at or past the peak, and every buffer below it is used: none was
  // planned for show.
  void RunPoisoned(const Plan& plan, const PackedBatch& batch) {
    ASSERT_NO_FATAL_FAILURE(backend_.Poison(kPoison));
    const absl::Status launched = backend_->Launch(0, plan, batch);
    ASSERT_TRUE(launched.ok()) << launched << "\n" << plan.ToString();
    backend_.Collect(0);
    const std::vector<std::byte> arena = backend_.Read();
    const auto touched = [&](uint64_t begin, uint64_t end) {
      return std::any_of(arena.begin() + begin, arena.begin() + end,
                         [](std::byte value) { return value != kPoison; });
    };
    EXPECT_FALSE(touched(plan.peak_bytes, arena.size())) << plan.ToString();
    uint64_t highest_offset = 0;
    for (const Buffer& buffer : plan.buffers) {
      highest_offset = std::max(highest_offset, buffer.offset);
      EXPECT_TRUE(touched(buffer.offset, buffer.end()))
          << RoleName(buffer.role) << "\n"
          << plan.ToString();
    }
    EXPECT_LE(backend_->TouchedBytes(), plan.peak_bytes);
    EXPECT_GT(backend_->TouchedBytes(), highest_offset);
  }

  std::mt19937 random_{21};
  const Model model_;
  PoisonedCuda backend_{model_};
};

TEST_F(CudaArenaTest, TouchesWhatWasPlannedForManyShapesAndBudgets) {
  const uint64_t least = backend_.planner(0).MinimumArenaBytes();
  for (const int percent : {100, 130, 200, 400}) {
    const Planner planner = backend_.planner(least * percent / 100);
    for (int planned = 0; planned < 3;) {
      const PackedBatch batch = RandomBatch(planned == 0 ? 1 : 8);
      const auto plan = planner.MakePlan(batch.Shape());
      if (!plan.ok()) continue;
      ++planned;
      ASSERT_NO_FATAL_FAILURE(ExpectTouchesWhatWasPlanned(*plan, batch));
    }
  }
}

TEST_F(CudaArenaTest, TouchesWhatWasPlannedInEveryWay) {
  for (const bool fused : {false, true}) {
    for (const int rows : {64, 200, 512}) {
      const PackedBatch batch = RandomBatch(8);
      const bool update = rows != 200;
      const Plan plan = backend_.planner().MakePlanWith(
          batch.Shape(),
          {.rows = rows, .heads = 2, .fused = fused, .update = update},
          {.rows = rows / 2, .fused = fused, .update = update});
      ASSERT_NO_FATAL_FAILURE(ExpectTouchesWhatWasPlanned(plan, batch));
    }
  }
  const PackedBatch batch = RandomBatch(8);
  const Plan plan = backend_.planner().MakePlanWith(
      batch.Shape(), {.rows = 64}, {.rows = 50, .rows_at_ends = 1});
  ASSERT_NO_FATAL_FAILURE(ExpectTouchesWhatWasPlanned(plan, batch));
}

// ---- Chained steps ----

// A width that the kernel has; a dense layer between factored ones; heads of
// other widths.
Model WideModel() {
  return RandomModel({.heads = 12,
                      .layers = {{32, 17, 24, 40, 96, 29},
                                 {},
                                 {16, 0, 33, 24, 31, 0},
                                 {16, 0, 33, 24, 31, 0, 16, 48}}});
}

class CudaChainTest : public CudaArenaTest {
 protected:
  CudaChainTest() : CudaArenaTest(WideModel()) {}
  void SetUp() override {
    if (backend_->target().fusion[0].chain_rows == 0) {
      GTEST_SKIP() << "no device for the kernel";
    }
  }
  Plan PlanChained(const PackedBatch& batch) {
    const auto plan = backend_.planner().MakePlan(batch.Shape());
    EXPECT_EQ(std::count_if(plan->steps.begin(), plan->steps.end(),
                            [](const Step& step) { return step.chained; }),
              6)
        << plan->ToString();
    return *plan;
  }
};

TEST_F(CudaChainTest, SameBitsAsWithoutAndInALargerBatch) {
  const auto inputs = RandomInputs(random_, {1, 16, 17, 64, 3, 33, 48});
  const PackedBatch batch = BatchOf(inputs);
  const Rows rows = backend_.Run(PlanChained(batch), batch);
  const Chunking whole = {.rows = batch.Shape().tokens};
  const Plan unchained =
      backend_.planner().MakePlanWith(batch.Shape(), whole, whole);
  EXPECT_EQ(backend_.Run(unchained, batch), rows);
  auto more = inputs;
  for (const auto& input : RandomInputs(random_, {64, 64, 50})) {
    more.push_back(input);
  }
  const Rows larger = backend_.Run(BatchOf(more));
  EXPECT_EQ(Rows(larger.begin(), larger.begin() + inputs.size()), rows);
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ(backend_.Run(BatchOf({inputs[i]}))[0], rows[i]) << i;
  }
}

TEST_F(CudaChainTest, TouchesWhatWasPlanned) {
  for (int round = 0; round < 5; ++round) {
    const PackedBatch batch = RandomBatch(3);
    ASSERT_NO_FATAL_FAILURE(
        ExpectTouchesWhatWasPlanned(PlanChained(batch), batch));
  }
}

// ---- Fast mode ----

// Sums over the intermediate are long enough to be split, on some GPUs alone.
class CudaFastTest : public ::testing::Test {
 protected:
  static constexpr int kSmall = 256;  // tokens

  void SetUp() override {
    ASSERT_TRUE(strict_.status().ok()) << strict_.status();
    ASSERT_TRUE(fast_.status().ok()) << fast_.status();
    std::mt19937 random(21);
    inputs_ = RandomInputs(random, kLengths);
  }
  bool Splits() { return fast_->info().mode == "fast"; }
  // One chunk, by products that are not fused.
  static Rows RunPlain(PoisonedCuda& backend, const PackedBatch& batch) {
    const Chunking whole = {.rows = BucketOf(batch.Shape()).tokens};
    return backend.Run(
        backend.planner().MakePlanWith(batch.Shape(), whole, whole), batch);
  }

  const Model model_ = RandomModel(
      {.intermediate = 1200,
       .layers = {{32, 17, 24, 40, 32, 29}, {24, 24, 24, 24, 40, 40}}});
  PoisonedCuda strict_{model_};
  PoisonedCuda fast_{model_, {.mode = Mode::kFast}};
  std::vector<std::vector<int32_t>> inputs_;
};

TEST_F(CudaFastTest, IsStrictWhereNothingIsSplit) {
  EXPECT_EQ(strict_->info().mode, "strict");
  EXPECT_EQ(strict_->target().split_sum_rows, 0);
  if (Splits()) {
    EXPECT_EQ(fast_->target().split_sum_rows, kSmall);
    return;
  }
  EXPECT_EQ(fast_->info().mode, "strict");
  EXPECT_TRUE(fast_->target() == strict_->target());
  const PackedBatch batch = BatchOf(inputs_);
  EXPECT_EQ(RunPlain(fast_, batch), RunPlain(strict_, batch));
}

TEST_F(CudaFastTest, ComesCloseToStrict) {
  const PackedBatch batch = BatchOf(inputs_);
  ASSERT_LE(batch.tokens(), kSmall);
  const Rows exact = RunPlain(strict_, batch);
  const Rows rows = RunPlain(fast_, batch);
  EXPECT_EQ(rows != exact, Splits());
  for (size_t i = 0; i < rows.size(); ++i) {
    for (size_t j = 0; j < rows[i].size(); ++j) {
      ASSERT_NEAR(rows[i][j], exact[i][j], 0.02) << i;  // lengths are 1
    }
  }
}

// By launches and by the graph of the bucket, which has more rows.
TEST_F(CudaFastTest, TheSameBatchHasTheSameBits) {
  const PackedBatch batch = BatchOf({inputs_[0], inputs_[1], inputs_[2]});
  ASSERT_NE(BucketOf(batch.Shape()).tokens, batch.tokens());
  const Rows rows = RunPlain(fast_, batch);
  EXPECT_EQ(fast_->graphs().captured(), 0);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(RunPlain(fast_, batch), rows);
  EXPECT_GT(fast_->graphs().captured(), 0);
}

TEST_F(CudaFastTest, SmallBatchesHaveTheBitsOfSmallOnes) {
  const Rows together = RunPlain(fast_, BatchOf(inputs_));
  for (size_t i = 0; i < inputs_.size(); ++i) {
    EXPECT_EQ(RunPlain(fast_, BatchOf({inputs_[i]}))[0], together[i]) << i;
  }
}

TEST_F(CudaFastTest, LargeBatchesHaveTheBitsOfStrictMode) {
  std::mt19937 random(22);
  const PackedBatch batch = BatchOf(RandomInputs(random, {64, 64, 64, 64, 17}));
  ASSERT_GT(batch.tokens(), kSmall);
  EXPECT_EQ(RunPlain(fast_, batch), RunPlain(strict_, batch));
}

// ---- Graphs ----

TEST(CudaGraphsTest, OneServesAllBatchesOfABucket) {
  const Model model = RandomModel({});
  PoisonedCuda backend(model);
  ASSERT_TRUE(backend.status().ok()) << backend.status();
  std::mt19937 random(5);
  const PackedBatch first = BatchOf(RandomInputs(random, {20, 10}));
  const Rows launched = backend.Run(first);
  EXPECT_EQ(backend->graphs().captured(), 0);  // it might not come again
  for (const std::vector<int>& lengths :
       {std::vector<int>{14, 17}, {31, 1}, {20, 10}}) {
    backend.Run(BatchOf(RandomInputs(random, lengths)));
  }
  EXPECT_EQ(backend->graphs().captured(), 1);
  EXPECT_EQ(backend.Run(first), launched);
  const PackedBatch other = BatchOf(RandomInputs(random, {20, 10, 1}));
  EXPECT_EQ(backend.Run(other), backend.Run(other));
  EXPECT_EQ(backend->graphs().captured(), 2);
}

// Nobody waits for launches beside a batch that runs, but for a capture.
TEST(CudaGraphsTest, BesideARunningBatchAShapeMustComeOften) {
  const Model model = RandomModel({});
  PoisonedCuda backend(model);
  ASSERT_TRUE(backend.status().ok()) << backend.status();
  std::mt19937 random(5);
  const PackedBatch running = BatchOf(RandomInputs(random, {40}));
  const PackedBatch next = BatchOf(RandomInputs(random, {20, 10}));
  const auto running_plan = backend.planner().MakePlan(running.Shape());
  const auto next_plan = backend.planner().MakePlan(next.Shape());
  ASSERT_TRUE(backend->Launch(0, *running_plan, running).ok());
  Rows launched;
  for (int seen = 0; seen < 10; ++seen) {
    ASSERT_TRUE(backend->Launch(1, *next_plan, next).ok());
    launched = backend.Collect(1);
    ASSERT_EQ(backend->graphs().captured(), 0) << seen;
  }
  ASSERT_TRUE(backend->Launch(1, *next_plan, next).ok());
  EXPECT_EQ(backend->graphs().captured(), 1);
  EXPECT_EQ(backend.Collect(1), launched);
}

TEST(CudaGraphsTest, ChunkedPlansHaveNone) {
  const Model model = RandomModel({});
  PoisonedCuda backend(model);
  ASSERT_TRUE(backend.status().ok()) << backend.status();
  std::mt19937 random(5);
  const PackedBatch batch = BatchOf(RandomInputs(random, {60, 60}));
  const Plan plan = backend.planner().MakePlanWith(
      batch.Shape(), {.rows = 64, .heads = 4}, {.rows = 512});
  for (int i = 0; i < 3; ++i) backend.Run(plan, batch);
  EXPECT_EQ(backend->graphs().captured(), 0);
}

TEST(CudaGraphsTest, TheOneUsedLongestAgoMakesRoom) {
  class Nothing : public CudaGraph {};
  CudaGraphs graphs(2);
  const auto plan = [](int tokens) {
    Plan plan;
    plan.shape.tokens = tokens;
    return plan;
  };
  graphs.Keep(plan(1), std::make_unique<Nothing>());
  CudaGraph* two = graphs.Keep(plan(2), std::make_unique<Nothing>());
  EXPECT_NE(graphs.Find(plan(1)), nullptr);
  EXPECT_EQ(graphs.Find(plan(2)), two);
  EXPECT_EQ(graphs.Find(plan(3)), nullptr);
  graphs.Keep(plan(3), std::make_unique<Nothing>());
  EXPECT_EQ(graphs.Find(plan(1)), nullptr);
  EXPECT_EQ(graphs.Find(plan(2)), two);
  EXPECT_EQ(graphs.size(), 2);
  EXPECT_EQ(graphs.captured(), 3);
}

// Whatever comes, only so many graphs are kept: the device's memory does not
// grow with traffic. More shapes than are kept come round three times, so that
// each is captured anew; the first round may load code.
TEST(CudaGraphsTest, InTheLongRunMemoryDoesNotCreep) {
  const Model model =
      RandomModel({.heads = 1, .intermediate = 32, .layers = {{}}});
  PoisonedCuda backend(model);
  ASSERT_TRUE(backend.status().ok()) << backend.status();
  std::mt19937 random(6);
  const uint64_t without_graphs = backend->OtherDeviceBytes();
  std::array<uint64_t, 3> most = {};
  for (uint64_t& most_of_round : most) {
    const int64_t before = backend->graphs().captured();
    for (int longest : {32, 64}) {
      for (int others : {1, 2, 3, 7, 11, 15}) {
        for (int tokens = longest + 16;
             tokens <= std::min(longest * (others + 1), 224); tokens += 16) {
          std::vector<int> lengths(others + 1, (tokens - longest) / others);
          lengths[0] = longest;
          lengths[1] += (tokens - longest) % others;
          const PackedBatch batch = BatchOf(RandomInputs(random, lengths));
          for (int i = 0; i < 2; ++i) backend.Run(batch);
          most_of_round = std::max(most_of_round, backend->OtherDeviceBytes());
          ASSERT_LE(backend->graphs().size(), 64);
        }
      }
    }
    EXPECT_GT(backend->graphs().captured() - before, 70);
  }
  EXPECT_EQ(backend->graphs().size(), 64);
  EXPECT_GT(most[0], without_graphs);
  EXPECT_EQ(most[2], most[1]);
}

// ---- What a batch asks of the runtime ----

class CudaCallsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(backend_.status().ok()) << backend_.status();
    std::mt19937 random(7);
    batch_ = BatchOf(RandomInputs(random, {20, 30, 40}));
    Remember();
  }

  void Remember() {
    for (int call = 0; call < Faults::kCalls; ++call) {
      before_[call] = faults_.calls(static_cast<Faults::Call>(call));
    }
  }
  // Since Remember().
  int Calls(Faults::Call call) const {
    return faults_.calls(call) - before_[call];
  }

  // One copy each way, nothing allocated, and nobody waits but Collect().
  void ExpectLeanBatch(const Plan& plan, bool by_graph) {
    BatchOutput output;
    for (int slot : {0, 1, 0, 1}) {  // warms up
      ASSERT_TRUE(backend_->Launch(slot, plan, batch_).ok());
      ASSERT_TRUE(backend_->Collect(slot, &output).ok());
    }
    Remember();
    ASSERT_TRUE(backend_->Launch(0, plan, batch_).ok());
    EXPECT_EQ(Calls(Faults::kWait), 0);
    ASSERT_TRUE(backend_->Launch(1, plan, batch_).ok());
    EXPECT_EQ(Calls(Faults::kWait), 0);
    EXPECT_EQ(Calls(Faults::kRunGraph), by_graph ? 2 : 0);
    ASSERT_TRUE(backend_->Collect(0, &output).ok());
    EXPECT_EQ(Calls(Faults::kWait), 1);
    ASSERT_TRUE(backend_->Collect(1, &output).ok());
    EXPECT_EQ(Calls(Faults::kCopyIn), 2);
    EXPECT_EQ(Calls(Faults::kCopyOut), 2);
    EXPECT_EQ(Calls(Faults::kRecord), 2);
    for (Faults::Call call :
         {Faults::kAllocate, Faults::kAllocatePinned, Faults::kCapture,
          Faults::kCreateEvent, Faults::kSynchronize}) {
      EXPECT_EQ(Calls(call), 0) << call;
    }
  }

  Faults faults_;
  const Model model_ = VariedModel();
  PoisonedCuda backend_{
      model_, {}, std::make_unique<FaultyRuntime>(OpenTestDevice(), &faults_)};
  PackedBatch batch_;
  int before_[Faults::kCalls] = {};
};

TEST_F(CudaCallsTest, WithAGraph) {
  const auto plan = backend_.planner().MakePlan(batch_.Shape());
  ASSERT_TRUE(plan.ok()) << plan.status();
  ExpectLeanBatch(*plan, /*by_graph=*/true);
}

TEST_F(CudaCallsTest, WithoutAGraph) {
  for (const bool fused : {false, true}) {
    const Plan plan = backend_.planner().MakePlanWith(
        batch_.Shape(), {.rows = 50, .heads = 2, .fused = fused},
        {.rows = 50, .fused = fused});
    ExpectLeanBatch(plan, /*by_graph=*/false);
  }
}

// Weights and arena, each at once, whatever the model's size.
TEST_F(CudaCallsTest, ADeviceIsAskedForMemoryTwice) {
  EXPECT_EQ(faults_.calls(Faults::kAllocate), 2);
}

// ---- What is refused, and what is said ----

TEST(CudaCreateTest, SaysWhatItIs) {
  PoisonedCuda backend(RandomModel({}));
  ASSERT_TRUE(backend.status().ok()) << backend.status();
  EXPECT_EQ(backend->info().name, "cuda");
  EXPECT_THAT(backend->info().reason, HasSubstr("sm_"));
  EXPECT_EQ(backend->info().dtype, "bfloat16");
  EXPECT_EQ(backend->info().mode, "strict");
  EXPECT_EQ(backend->slots(), 2);
  EXPECT_FALSE(backend->lost());
}

TEST(CudaCreateTest, RefusesWhatTheKernelsDoNotTake) {
  PoisonedCuda narrow(RandomModel({.heads = 4, .head_dim = 8}));
  EXPECT_EQ(narrow.status().code(), absl::StatusCode::kUnimplemented);
  PoisonedCuda wide(RandomModel({.layers = {{.value_dim = 144}}}));
  EXPECT_THAT(std::string(wide.status().message()), HasSubstr("heads of 144"));
  PoisonedCuda f32(RandomModel({}), {.compute = ComputeType::kF32});
  EXPECT_EQ(f32.status().code(), absl::StatusCode::kUnimplemented);
  PoisonedCuda tight(RandomModel({}), {.arena_bytes = 1000});
  EXPECT_THAT(std::string(tight.status().message()), HasSubstr("1000 bytes"));
  PoisonedCuda huge(RandomModel({}), {.arena_bytes = uint64_t{1} << 50});
  EXPECT_EQ(huge.status().code(), absl::StatusCode::kResourceExhausted);
}

// Without a size from the configuration the arena is what suits the model, but
// leaves the reserve free.
TEST(CudaCreateTest, TheArenaLeavesTheReserveFree) {
  const Model model = RandomModel({});
  PoisonedCuda all(model);
  ASSERT_TRUE(all.status().ok()) << all.status();
  const uint64_t wanted = all->info().arena_bytes;

  size_t free = 0;
  size_t total = 0;
  auto runtime = OpenTestDevice();
  ASSERT_EQ(runtime->Use(), cudaSuccess);
  ASSERT_EQ(runtime->MemoryInfo(&free, &total), cudaSuccess);
  const uint64_t reserve = free - all->info().weight_bytes - wanted / 2;
  PoisonedCuda less(model, {.memory_reserve_bytes = reserve});
  ASSERT_TRUE(less.status().ok()) << less.status();
  // The driver gives a second set of weights what the first has left of a page,
  // and counts in pages.
  constexpr uint64_t kPage = 2 << 20;
  EXPECT_LE(less->info().arena_bytes,
            wanted / 2 + less->info().weight_bytes + kPage);
  EXPECT_GE(less->info().arena_bytes, less.planner(0).MinimumArenaBytes());

  PoisonedCuda none(model, {.memory_reserve_bytes = total});
  EXPECT_EQ(none.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("reserved"));
}

TEST(CudaCreateTest, RefusesWeightsThatFloat16DoesNotHave) {
  Model model = RandomModel({});
  std::vector<float> word = model.embeddings.word.ToF32();
  word[7] = 1e6f;
  model.embeddings.word = Tensor::FromF32(model.embeddings.word.shape(), word);
  PoisonedCuda f16(model, {.compute = ComputeType::kF16});
  EXPECT_EQ(f16.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(f16.status().message()),
              HasSubstr("word embeddings"));
}

TEST(CudaLaunchTest, RefusesABadBatchAndGoesOn) {
  const Model model = RandomModel({});
  PoisonedCuda backend(model);
  ASSERT_TRUE(backend.status().ok()) << backend.status();
  std::mt19937 random(31);
  PackedBatch batch = BatchOf(RandomInputs(random, {10, 20}));
  const Rows before = backend.Run(batch);
  const auto plan = backend.planner().MakePlan(batch.Shape());
  PackedBatch bad = batch;
  bad.ids[12] = 100;
  EXPECT_THAT(std::string(backend->Launch(0, *plan, bad).message()),
              HasSubstr("sequence 1"));
  EXPECT_FALSE(backend->Launch(2, *plan, batch).ok());
  BatchOutput output;
  EXPECT_FALSE(backend->Collect(0, &output).ok());
  EXPECT_EQ(backend.Run(batch), before);
}

TEST(CudaLaunchTest, CutsThenNormalizes) {
  const Model model = RandomModel({});
  PoisonedCuda backend(model);
  ASSERT_TRUE(backend.status().ok()) << backend.status();
  std::mt19937 random(31);
  PackedBatch batch = BatchOf(RandomInputs(random, {10, 20}));
  batch.options[0] = {.normalize = false};
  const Rows whole = backend.Run(batch);
  batch.options[0] = {.normalize = true, .dimensions = 10};
  const Rows cut = backend.Run(batch);
  double length = 0;
  for (int i = 0; i < 10; ++i) length += whole[0][i] * whole[0][i];
  for (int i = 0; i < 10; ++i) {
    EXPECT_NEAR(cut[0][i], whole[0][i] / std::sqrt(length), 1e-6);
  }
  for (int i = 10; i < 128; ++i) EXPECT_EQ(cut[0][i], 0);
  EXPECT_EQ(cut[1], whole[1]);
}

}  // namespace
}  // namespace svdserve
