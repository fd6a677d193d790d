// Several cores for one request: what sharing does to latency, and that it takes nothing from a busy server.
//
//   sharing_bench [--threads N] [--seconds S]
//
// Requests of the paper's shape go through the server's own scoring pool, without a network. Each is measured with
// sharing and without, in turn:
//   alone   one request at a time, by size: idle threads help with what is large enough
//   busy    twice as many clients as threads, each sending its next request when the last is answered: no thread is idle,
//           so throughput and latency are what they are without sharing
//   mixed   one client of large requests, one of small: a small one never waits for a large one's helper to be done
// Scores are held against those of one thread, bit for bit, before anything is timed.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <memory>
#include <string_view>
#include <thread>
#include <vector>

#include "model/din_model.h"
#include "server/scoring_pool.h"
#include "server/shared_scoring.h"
#include "tests/model/bench_model.h"
#include "tests/model/random_request.h"

namespace din::bench {
namespace {

using Clock = std::chrono::steady_clock;
using testing::DecodeOrDie;
using testing::OrDie;

double Microseconds(Clock::duration d) { return std::chrono::duration<double, std::micro>(d).count(); }

struct Shape {
  size_t candidates;
  size_t behaviours;
};

enum class Sharing { kOff, kOn };

class Job final : public ScoringJob {
 public:
  Job(const DinModel& model, ScoringPool& pool, Sharing sharing, const ScoringInput& input)
      : model_(model), pool_(pool), sharing_(sharing), input_(input), scores_(input.candidates) {}

  // Submits and waits: the time until the answer.
  double Time() {
    done_ = std::promise<void>();
    const Clock::time_point start = Clock::now();
    if (!pool_.Submit(this).ok()) std::abort();
    done_.get_future().wait();
    return Microseconds(Clock::now() - start);
  }
  const std::vector<float>& scores() const { return scores_; }

  void Run(ScoringMemory& memory) override {
    memory.input = input_;
    if (sharing_ == Sharing::kOff) {
      model_.Score(memory.input, memory.workspace, scores_);
    } else if (!ScoreShared(model_, *this, pool_, memory, scores_).ok()) {
      std::abort();
    }
    done_.set_value();
  }
  void Refuse(const absl::Status&) override { std::abort(); }

 private:
  const DinModel& model_;
  ScoringPool& pool_;
  const Sharing sharing_;
  const ScoringInput& input_;
  std::vector<float> scores_;
  std::promise<void> done_;
};

double Percentile(std::vector<double>& sorted_here, double p) {
  std::sort(sorted_here.begin(), sorted_here.end());
  return sorted_here[static_cast<size_t>(p * static_cast<double>(sorted_here.size() - 1))];
}

class Bench {
 public:
  Bench(int threads, double seconds)
      : raw_(testing::PaperModel()),
        model_(OrDie(DinModel::Create(raw_.spec, raw_.tensors, BestInstructionSet()))),
        threads_(threads),
        seconds_(seconds),
        pool_({.threads = threads, .queue = 64}) {}

  void Alone(const Shape& shape) {
    const ScoringInput input = Draw(shape);
    Check(input);
    Job off(*model_, pool_, Sharing::kOff, input), on(*model_, pool_, Sharing::kOn, input);
    std::vector<double> times[2];
    const Clock::time_point end = After(seconds_);
    do {
      times[0].push_back(off.Time());
      times[1].push_back(on.Time());
    } while (Clock::now() < end);
    const double without = Percentile(times[0], 0.5), with = Percentile(times[1], 0.5);
    std::printf("alone  %5zu x %-5zu  p50 %8.1f -> %8.1f us (%.2fx)   p99 %8.1f -> %8.1f us   %zu requests\n",
                shape.candidates, shape.behaviours, without, with, without / with, Percentile(times[0], 0.99),
                Percentile(times[1], 0.99), times[0].size());
  }

  // Clients of these shapes, each in a closed loop.
  void Together(const char* name, const std::vector<Shape>& clients) {
    for (const Sharing sharing : {Sharing::kOff, Sharing::kOn}) {
      std::vector<std::vector<double>> times(clients.size());
      std::vector<std::thread> threads;
      const Clock::time_point end = After(seconds_);
      for (size_t c = 0; c < clients.size(); ++c) {
        threads.emplace_back([&, c] {
          const ScoringInput input = Draw(clients[c]);
          Job job(*model_, pool_, sharing, input);
          while (Clock::now() < end) times[c].push_back(job.Time());
        });
      }
      for (std::thread& thread : threads) thread.join();
      for (size_t c = 0; c < clients.size();) {
        std::vector<double> of_shape;
        const Shape shape = clients[c];
        for (; c < clients.size() && clients[c].candidates == shape.candidates; ++c) {
          of_shape.insert(of_shape.end(), times[c].begin(), times[c].end());
        }
        std::printf("%-6s %5zu x %-5zu  sharing %-3s  %9.1f requests/s   p50 %8.1f   p99 %8.1f us\n", name,
                    shape.candidates, shape.behaviours, sharing == Sharing::kOn ? "on" : "off",
                    static_cast<double>(of_shape.size()) / seconds_, Percentile(of_shape, 0.5),
                    Percentile(of_shape, 0.99));
      }
    }
  }

  int threads() const { return threads_; }

 private:
  static Clock::time_point After(double seconds) {
    return Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  }

  ScoringInput Draw(const Shape& shape) {
    testing::Rng rng(shape.candidates * 10'000 + shape.behaviours);
    const v1::GoldenCase request = testing::RandomRequest(
        rng, raw_.spec, raw_.tensors, {.candidates = shape.candidates, .behaviours = shape.behaviours});
    return DecodeOrDie(model_->decoder(), request);
  }

  void Check(const ScoringInput& input) {
    Workspace workspace;
    std::vector<float> expected(input.candidates);
    model_->Score(input, workspace, expected);
    for (int i = 0; i < 20; ++i) {
      Job job(*model_, pool_, Sharing::kOn, input);
      job.Time();
      if (job.scores() == expected) continue;
      std::fprintf(stderr, "shared scores are not those of one thread\n");
      std::exit(1);
    }
  }

  const testing::RawModel raw_;
  const std::unique_ptr<const DinModel> model_;
  const int threads_;
  const double seconds_;
  ScoringPool pool_;
};

int Main(int argc, char** argv) {
  int threads = static_cast<int>(std::max(2u, std::thread::hardware_concurrency()));
  double seconds = 1;
  for (int a = 1; a < argc; a += 2) {
    const std::string_view flag = argv[a];
    if (a + 1 < argc && flag == "--threads") {
      threads = std::atoi(argv[a + 1]);
    } else if (a + 1 < argc && flag == "--seconds") {
      seconds = std::atof(argv[a + 1]);
    } else {
      std::fprintf(stderr, "usage: sharing_bench [--threads N] [--seconds S]\n");
      return 2;
    }
  }
  if (threads < 1 || threads > 1024 || !(seconds > 0)) {
    std::fprintf(stderr, "sharing_bench: --threads in [1, 1024], --seconds > 0\n");
    return 2;
  }
  Bench bench(threads, seconds);
  std::printf("%d scoring threads; without sharing -> with\n", threads);
  constexpr Shape kAlone[] = {{1, 50},   {8, 20},   {5, 100},   {10, 100},  {14, 100},   {20, 100},
                              {30, 100}, {50, 100}, {100, 100}, {200, 100}, {1000, 100}, {200, 1000}};
  for (const Shape& shape : kAlone) bench.Alone(shape);
  bench.Together("busy", std::vector<Shape>(2 * static_cast<size_t>(threads), {200, 100}));
  bench.Together("mixed", {{1000, 100}, {8, 20}});
  return 0;
}

}  // namespace
}  // namespace din::bench

int main(int argc, char** argv) { return din::bench::Main(argc, argv); }
