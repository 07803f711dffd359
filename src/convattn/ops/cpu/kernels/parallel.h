// Tasks shared among threads, on the pool that torch itself runs on.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <new>
#include <thread>
#include <vector>

namespace convattn {

// OpenMP's entry point for a parallel region, taken from the runtime that torch has loaded. A pool of our own,
// or a second OpenMP, would fight with torch's for the same cores.
using OpenMPParallel = void (*)(void (*body)(void*), void* data, unsigned threads, unsigned flags);
inline OpenMPParallel openmp_parallel = nullptr;

// How many rows make a task: at most ``most``, fewer where several threads would have too few tasks to share
// evenly. Rows are cut into ``parts`` already.
inline int64_t rows_at_once(int64_t rows, int64_t most, int64_t parts, int threads) {
  const int64_t tasks = threads > 1 ? 2 * threads : 1, channels = (tasks + parts - 1) / parts;
  return std::max<int64_t>(4, std::min(most, (rows + channels - 1) / channels));
}

// Call task(i) for every i below count.
template <class Task>
void parallel_for(int64_t count, int threads, const Task& task) {
  struct Region {
    const Task& task;
    int64_t count;
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};

    // An exception must not leave a thread; the only one is a lack of memory.
    static void run(void* data) noexcept {
      auto& region = *static_cast<Region*>(data);
      try {
        for (int64_t i; (i = region.next.fetch_add(1)) < region.count;) region.task(i);
      } catch (const std::bad_alloc&) {
        region.failed = true;
      }
    }
  } region{task, count};

  if (threads > count) threads = static_cast<int>(count);
  if (threads <= 1) {
    Region::run(&region);
  } else if (openmp_parallel) {
    openmp_parallel(&Region::run, &region, static_cast<unsigned>(threads), 0);
  } else {
    std::vector<std::thread> others;
    for (int i = 1; i < threads; ++i) others.emplace_back(&Region::run, &region);
    Region::run(&region);
    for (auto& thread : others) thread.join();
  }
  if (region.failed) throw std::bad_alloc();
}

}  // namespace convattn
