/*
 * Load that must not be disturbed, and a pod that speaks before anybody knows it. Each command runs for a bounded time and prints one
 * JSON object; times are microseconds.
 *
 *   steady ADDRESS PORT HELD EVERY_MS RATE SPREAD MS   HELD connections that send a byte and wait for an answer every so often, and RATE
 *                                                      new ones a second that do so once; to SPREAD addresses in turn. SIGTERM ends it
 *                                                      early, and lets it print
 *   shout ADDRESS PORT MS                              UDP, every 200 µs, from before there is a way until the time is over
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 4096, SAMPLES_MAX = 1 << 18, LOST_MS = 5000, SHOUT_NS = 200000 };

/* A connection: `held` ones go on, the others end with their first answer. `since`: of what it waits for; 0: it is idle. */
struct slot {
  int fd;
  int held, connected;
  uint64_t since, next;
};

static struct slot slots[SLOTS];
static uint64_t samples[SAMPLES_MAX];
static size_t sampled;
static unsigned held_lost, exchanges, opened, ok, refused, lost, no_room;
static int poller;
static volatile sig_atomic_t enough;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *what) {
  fprintf(stderr, "steady: %s: %s\n", what, strerror(errno));
  exit(1);
}

static int ascending(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

static double percentile(double p) { return sampled == 0 ? 0 : (double)samples[(size_t)(p * (double)(sampled - 1))] / 1000; }

static struct sockaddr_in address_of(const char *text, int port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  if (inet_pton(AF_INET, text, &a.sin_addr) != 1) {
    fprintf(stderr, "steady: %s is not an IPv4 address\n", text);
    exit(2);
  }
  return a;
}

static void drop(struct slot *s) {
  struct linger now = {.l_onoff = 1};
  setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now); /* no TIME_WAIT: the ports are needed again */
  close(s->fd);
  s->fd = -1;
}

static void over(struct slot *s, int error) {
  if (s->held) held_lost++;
  else if (error == ECONNREFUSED) refused++;
  else lost++;
  drop(s);
}

static void begin(int held, struct sockaddr_in to, uint32_t offset) {
  struct slot *s = NULL;
  for (unsigned i = 0; i < SLOTS && s == NULL; i++) if (slots[i].fd < 0) s = &slots[i];
  opened += !held;
  if (s == NULL) {
    no_room++;
    return;
  }
  to.sin_addr.s_addr = htonl(ntohl(to.sin_addr.s_addr) + offset);
  *s = (struct slot){.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), .held = held, .since = now_ns()};
  if (s->fd < 0) fail("socket");
  struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = s};
  epoll_ctl(poller, EPOLL_CTL_ADD, s->fd, &e);
  if (connect(s->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) over(s, errno);
}

static void speak(struct slot *s) {
  if (send(s->fd, "?", 1, MSG_NOSIGNAL) < 0) over(s, errno);
}

static void ready(struct slot *s, uint32_t events, uint64_t every) {
  int error = 0;
  socklen_t size = sizeof error;
  char answer[64];
  if (s->fd < 0) return;
  getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) return over(s, error);
  if (!s->connected) {
    if (!(events & EPOLLOUT)) return;
    s->connected = 1;
    return speak(s);
  }
  ssize_t got = recv(s->fd, answer, sizeof answer, MSG_DONTWAIT);
  if (got < 0 && errno == EAGAIN) return;
  if (got <= 0) return over(s, got < 0 ? errno : ECONNRESET);
  if (s->since != 0 && sampled < SAMPLES_MAX) samples[sampled++] = now_ns() - s->since;
  if (s->held) {
    exchanges++;
    s->since = 0;
    s->next = now_ns() + every;
  } else {
    ok++;
    drop(s);
  }
}

static void stop(int signal) { enough = signal; }

static int steady(struct sockaddr_in to, unsigned held, unsigned every_ms, unsigned rate, unsigned spread, unsigned ms) {
  uint64_t start = now_ns(), end = start + ms * 1000000ull, every = every_ms * 1000000ull, gap = 1000000000u / (rate > 0 ? rate : 1);
  uint64_t next = start + 1000000000u; /* the held ones come first */
  unsigned busy = 1;
  signal(SIGTERM, stop);
  poller = epoll_create1(0);
  for (unsigned i = 0; i < SLOTS; i++) slots[i].fd = -1;
  for (unsigned i = 0; i < held; i++) begin(1, to, i % spread);
  while (now_ns() < end || (busy > 0 && now_ns() < end + LOST_MS * 1000000ull)) {
    struct epoll_event some[256];
    if (enough) end = now_ns(), enough = 0;
    int n = epoll_wait(poller, some, 256, 1);
    for (int i = 0; i < n; i++) ready(some[i].data.ptr, some[i].events, every);
    uint64_t now = now_ns();
    for (; now < end && rate > 0 && next <= now; next += gap) begin(0, to, opened % spread);
    now = now_ns(); /* later than what has just begun */
    busy = 0;
    for (unsigned i = 0; i < SLOTS; i++) {
      struct slot *s = &slots[i];
      if (s->fd < 0) continue;
      if (s->since != 0) {
        busy++;
        if (now - s->since > LOST_MS * 1000000ull) over(s, ETIMEDOUT);
      } else if (now < end && s->held && now >= s->next) {
        s->since = now;
        speak(s);
      }
    }
  }
  qsort(samples, sampled, sizeof *samples, ascending);
  printf("{\"held\":%u,\"heldLost\":%u,\"exchanges\":%u,\"opened\":%u,\"ok\":%u,\"refused\":%u,\"lost\":%u,", held, held_lost, exchanges, opened, ok,
         refused, lost + no_room);
  printf("\"p50\":%.2f,\"p99\":%.2f,\"max\":%.2f}\n", percentile(0.5), percentile(0.99), percentile(1));
  return 0;
}

static int shout(struct sockaddr_in to, unsigned ms) {
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  unsigned sent = 0, tries = 0;
  puts("ready");
  fflush(stdout);
  for (uint64_t end = now_ns() + ms * 1000000ull; now_ns() < end; tries++) {
    struct timespec rest = {.tv_nsec = SHOUT_NS};
    if (sendto(fd, "!", 1, 0, (struct sockaddr *)&to, sizeof to) == 1) sent++;
    nanosleep(&rest, NULL);
  }
  printf("{\"sent\":%u,\"tries\":%u}\n", sent, tries);
  return 0;
}

int main(int argc, char **argv) {
  prctl(PR_SET_TIMERSLACK, 1ul);
  char **a = argv + 2;
  if (argc == 9 && !strcmp(argv[1], "steady"))
    return steady(address_of(a[0], atoi(a[1])), (unsigned)atoi(a[2]), (unsigned)atoi(a[3]), (unsigned)atoi(a[4]), (unsigned)atoi(a[5]), (unsigned)atoi(a[6]));
  if (argc == 5 && !strcmp(argv[1], "shout")) return shout(address_of(a[0], atoi(a[1])), (unsigned)atoi(a[2]));
  fprintf(stderr, "steady: no such command, or not its arguments; they are listed in steady.c\n");
  return 2;
}
