// SPDX-License-Identifier: Apache-2.0
// Processes as threads and streams that hold no more than their depth; simulation only. A stream
// has one writer and one reader, as in hardware, so that a wait ends by what one other thread does.
// All share one lock, hence it is known at any time who waits: when that is everyone, nobody would
// ever go on.
#ifndef THREADS_HPP
#define THREADS_HPP

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

// A thread that waits: at which stream, and for what.
struct Wait {
  std::string reason;
  std::condition_variable over;
  bool waits = false;
};

// The threads of the dataflow region that runs, and the thread that started them.
class Threads {
 public:
  static Threads& all() {
    static Threads threads;
    return threads;
  }

  template <class Body>
  void start(Body body) {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      running_++;
    }
    threads_.emplace_back([this, body] {
      body();
      const std::lock_guard<std::mutex> lock(mutex);
      leave();
    });
  }

  // Waits for the end of all threads; for the thread that started them.
  void join() {
    if (threads_.empty()) return;
    {
      const std::lock_guard<std::mutex> lock(mutex);
      leave();
    }
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    running_ = 1;
  }

  // Lets the calling thread, which holds the lock, wait until `wait` is over.
  void pause(Wait& wait, const std::string& reason, std::unique_lock<std::mutex>& lock) {
    wait.reason = reason;
    wait.waits = true;
    waiting_.push_back(&wait);
    leave();
    wait.over.wait(lock, [&] { return !wait.waits; });
  }

  // Ends a wait of another thread, if there is one; the calling thread holds the lock.
  void wake(Wait& wait) {
    if (!wait.waits) return;
    wait.waits = false;
    running_++;
    for (std::size_t i = 0; i < waiting_.size(); i++) {
      if (waiting_[i] == &wait) waiting_.erase(waiting_.begin() + i--);
    }
    wait.over.notify_one();
  }

  static void fail(const std::string& what) {
    std::fprintf(stderr, "error: %s: the hardware would hang here\n", what.c_str());
    std::fflush(stderr);
    std::_Exit(3);  // no destructors: other threads still run
  }

  std::mutex mutex;

 private:
  Threads() : running_(1) {}

  void leave() {
    running_--;
    if (running_ > 0 || waiting_.empty()) return;
    std::string text = "deadlock, every process waits";
    for (const Wait* wait : waiting_) text += "; " + wait->reason;
    fail(text);
  }

  std::vector<std::thread> threads_;
  std::vector<Wait*> waiting_;
  int running_;  // threads that do not wait
};

template <class T>
class Fifo {
 public:
  Fifo(const char* name, int depth) : name_(name), depth_(depth) {}
  Fifo(const Fifo&) = delete;
  Fifo& operator=(const Fifo&) = delete;

  ~Fifo() {
    Threads::all().join();
    if (!items_.empty()) Threads::fail("stream '" + name_ + "' is left with unread elements");
  }

  void write(const T& item) {
    std::unique_lock<std::mutex> lock(Threads::all().mutex);
    if (items_.size() == depth_) {
      const std::string size = std::to_string(depth_);
      Threads::all().pause(writer_, "stream '" + name_ + "' is full with " + size, lock);
    }
    items_.push_back(item);
    Threads::all().wake(reader_);
  }

  T read() {
    std::unique_lock<std::mutex> lock(Threads::all().mutex);
    if (items_.empty()) Threads::all().pause(reader_, "stream '" + name_ + "' is empty", lock);
    const T item = items_.front();
    items_.pop_front();
    Threads::all().wake(writer_);
    return item;
  }

 private:
  const std::string name_;
  const std::size_t depth_;
  std::deque<T> items_;
  Wait writer_, reader_;
};

#endif  // THREADS_HPP
