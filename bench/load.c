/*
 * Load generators and meters for the benchmarks, in C because Node's own jitter is larger than what is measured. Each
 * command runs for a bounded time and prints one JSON object; times are microseconds. Names are xN.bench.test, and the
 * responder answers N with the address 198.18.0.0 + N.
 *
 *   answer PORT                               DNS responder on UDP, until killed
 *   ask SERVER COUNT FIRST NAMES RATE         DNS queries for x(FIRST+i mod NAMES); RATE 0: the next one after the reply
 *   teach SERVER PODS PER_POD FIRST           the same from each of the devices p0, p1, ..., some in flight
 *   first SERVER PORT COUNT FIRST INFLIGHT    ask, then connect to the answer at once
 *   serve PORT                                TCP: accept and discard, until killed
 *   connect ADDRESS PORT COUNT STEP           connects one after the other; the address grows by STEP each time
 *   reply PORT                                TCP: answers what comes with a few bytes, until killed
 *   hello ADDRESS PORT COUNT HEX              connects, sends these bytes (a ClientHello with another random each time), waits for the first answer; one after the other
 *   drip ADDRESS PORT FROM TO PER_POD MS      from each of the devices pFROM to pTO: connections whose first message comes a byte at a time,
 *                                             and never whole; pN connects to ADDRESS + N
 *   stream ADDRESS PORT MS                    TCP: sends as fast as it can
 *   flood ADDRESS PORT RATE MS SPREAD         UDP: RATE a second (0: all it can) to SPREAD addresses in turn
 *   change FROM TO SET ADDRESS WANTED         renames FROM to TO; how long until the ipset has (1) or lacks (0) ADDRESS
 *   seen SET ADDRESS WANTED                   says "ready", then when that was so, by the monotonic clock
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MESSAGE = 512, SAMPLES_MAX = 1 << 20, PODS_MAX = 1000, REPLY_MS = 2000, CONNECT_MS = 5000, CHANGE_MS = 5000, SEEN_MS = 10000 };
static const uint32_t ANSWER_BASE = 198u << 24 | 18u << 16; /* 198.18.0.0/15, RFC 2544 */

static uint64_t samples[SAMPLES_MAX];
static size_t sampled;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *what) {
  fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void sample(uint64_t ns) {
  if (sampled < SAMPLES_MAX) samples[sampled++] = ns;
}

static int ascending(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

/* The percentiles of what was sampled, as the last fields of an object that has been begun. */
static void print_samples(void) {
  qsort(samples, sampled, sizeof *samples, ascending);
  double p[4] = {0};
  const double at[] = {0.5, 0.99, 0.999, 1};
  for (int i = 0; i < 4 && sampled > 0; i++) p[i] = (double)samples[(size_t)(at[i] * (double)(sampled - 1))] / 1000;
  printf("\"count\":%zu,\"p50\":%.2f,\"p99\":%.2f,\"p999\":%.2f,\"max\":%.2f}\n", sampled, p[0], p[1], p[2], p[3]);
}

static struct sockaddr_in address_of(const char *text, int port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  if (inet_pton(AF_INET, text, &a.sin_addr) != 1) {
    fprintf(stderr, "load: %s is not an IPv4 address\n", text);
    exit(2);
  }
  return a;
}

static int socket_to(int type, const struct sockaddr_in *to) {
  int fd = socket(AF_INET, type, 0);
  if (fd < 0) fail("socket");
  if (to != NULL && connect(fd, (const struct sockaddr *)to, sizeof *to) < 0) fail("connect");
  return fd;
}

/* Closed with a reset, so that no port waits in TIME_WAIT. */
static void reset(int fd) {
  struct linger now = {.l_onoff = 1};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close(fd);
}

/* Waits for readability until `until`; finer than milliseconds. */
static int readable(int fd, uint64_t until) {
  uint64_t now = now_ns(), left = until > now ? until - now : 0;
  struct timespec wait = {.tv_sec = (time_t)(left / 1000000000u), .tv_nsec = (long)(left % 1000000000u)};
  struct pollfd p = {.fd = fd, .events = POLLIN};
  return ppoll(&p, 1, &wait, NULL) > 0;
}

/* An A query for xN.bench.test; returns its length. */
static size_t query(uint8_t *out, uint16_t id, unsigned n) {
  static const uint8_t head[] = {0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, tail[] = "\5bench\4test\0\0\1\0\1";
  char label[16];
  int length = snprintf(label, sizeof label, "x%u", n);
  memcpy(out, head, sizeof head);
  out[0] = (uint8_t)(id >> 8);
  out[1] = (uint8_t)id;
  out[12] = (uint8_t)length;
  memcpy(out + 13, label, (size_t)length);
  memcpy(out + 13 + length, tail, sizeof tail - 1);
  return 13 + (size_t)length + sizeof tail - 1;
}

static uint16_t id_of(const uint8_t *message) { return (uint16_t)(message[0] << 8 | message[1]); }

_Noreturn static int answer(int port) {
  struct sockaddr_in any = address_of("0.0.0.0", port), from;
  int fd = socket_to(SOCK_DGRAM, NULL), size = 4 << 20;
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  if (bind(fd, (struct sockaddr *)&any, sizeof any) < 0) fail("bind");
  puts("ready");
  fflush(stdout);
  for (uint8_t m[MESSAGE];;) {
    socklen_t from_length = sizeof from;
    ssize_t got = recvfrom(fd, m, sizeof m - 16, 0, (struct sockaddr *)&from, &from_length);
    if (got < 18 || m[12] < 2) continue;
    size_t end = 12; /* end of the question: whatever follows it (EDNS) is dropped */
    while (end < (size_t)got && m[end] != 0) end += 1u + m[end];
    end += 5;
    if (end > (size_t)got) continue;
    uint32_t a = htonl(ANSWER_BASE + (uint32_t)strtoul((char *)m + 14, NULL, 10));
    static const uint8_t record[] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4}; /* TTL 300 */
    m[2] |= 0x80;
    m[3] = 0x80;
    memcpy(m + 6, "\0\1\0\0\0\0", 6);
    memcpy(m + end, record, sizeof record);
    memcpy(m + end + sizeof record, &a, 4);
    sendto(fd, m, end + sizeof record + 4, 0, (struct sockaddr *)&from, from_length);
  }
}

static int ask(const char *server, unsigned count, unsigned first, unsigned names, unsigned rate) {
  struct sockaddr_in to = address_of(server, 53);
  int fd = socket_to(SOCK_DGRAM, &to);
  static uint64_t sent_at[65536];
  uint8_t m[MESSAGE];
  unsigned sent = 0, answered = 0;
  uint64_t gap = rate > 0 ? 1000000000u / rate : 0, next = now_ns(), begin = next;
  while (answered < count) {
    uint64_t now = now_ns();
    if (sent < count && (rate > 0 ? now >= next : sent == answered)) {
      size_t length = query(m, (uint16_t)sent, (first + sent) % names);
      sent_at[(uint16_t)sent] = now_ns();
      if (send(fd, m, length, 0) < 0) fail("send");
      sent++;
      next += gap;
      continue;
    }
    if (!readable(fd, rate > 0 && sent < count ? next : now + REPLY_MS * 1000000ull)) {
      if (rate > 0 && sent < count) continue;
      break; /* what is missing now is lost */
    }
    if (recv(fd, m, sizeof m, MSG_DONTWAIT) < 12) continue;
    uint64_t *at = &sent_at[id_of(m)];
    if (*at != 0) sample(now_ns() - *at), answered++;
    *at = 0;
  }
  printf("{\"sent\":%u,\"lost\":%u,\"perSecond\":%.0f,", sent, sent - answered, answered * 1e9 / (double)(now_ns() - begin));
  print_samples();
  return 0;
}

static int teach(const char *server, unsigned pods, unsigned per_pod, unsigned first) {
  enum { WINDOW = 64 };
  struct sockaddr_in to = address_of(server, 53);
  static int fds[PODS_MAX];
  int poller = epoll_create1(0);
  unsigned sent = 0, got = 0, total = pods * per_pod;
  if (pods > PODS_MAX) return 2;
  for (unsigned i = 0; i < pods; i++) {
    char device[16];
    int length = snprintf(device, sizeof device, "p%u", i);
    fds[i] = socket(AF_INET, SOCK_DGRAM, 0);
    if (setsockopt(fds[i], SOL_SOCKET, SO_BINDTODEVICE, device, (socklen_t)length) < 0) fail(device);
    if (connect(fds[i], (struct sockaddr *)&to, sizeof to) < 0) fail("connect");
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fds[i]};
    epoll_ctl(poller, EPOLL_CTL_ADD, fds[i], &e);
  }
  uint64_t begin = now_ns();
  while (got < total) {
    uint8_t m[MESSAGE];
    if (sent < total && sent - got < WINDOW) {
      if (send(fds[sent % pods], m, query(m, (uint16_t)sent, first + sent), 0) < 0) fail("send");
      sent++;
      continue;
    }
    struct epoll_event ready[WINDOW];
    int n = epoll_wait(poller, ready, WINDOW, REPLY_MS);
    if (n <= 0) break;
    for (int i = 0; i < n; i++)
      while (recv(ready[i].data.fd, m, sizeof m, MSG_DONTWAIT) >= 12) got++;
  }
  printf("{\"sent\":%u,\"lost\":%u,\"perSecond\":%.0f}\n", sent, sent - got, got * 1e9 / (double)(now_ns() - begin));
  return 0;
}

/* A slot of `first`: a query under way (tcp < 0), or the connection that followed. */
struct slot {
  int dns, tcp;
  uint64_t since;
};

static int first_connect(const char *server, int port, unsigned count, unsigned first, unsigned inflight) {
  enum { SLOTS = 64 };
  struct slot slots[SLOTS];
  struct sockaddr_in to = address_of(server, 53);
  unsigned started = 0, done = 0, ok = 0, refused = 0, lost = 0, unanswered = 0;
  int poller = epoll_create1(0);
  uint8_t m[MESSAGE];
  if (inflight > SLOTS) return 2;
  for (unsigned i = 0; i < inflight; i++) {
    slots[i] = (struct slot){.dns = socket_to(SOCK_DGRAM, &to), .tcp = -1};
    struct epoll_event e = {.events = EPOLLIN, .data.u32 = i};
    epoll_ctl(poller, EPOLL_CTL_ADD, slots[i].dns, &e);
    send(slots[i].dns, m, query(m, (uint16_t)started, first + started), 0);
    slots[i].since = now_ns();
    started++;
  }
  while (done < count) {
    struct epoll_event ready[SLOTS];
    int n = epoll_wait(poller, ready, SLOTS, 100);
    for (int i = 0; i < n; i++) {
      struct slot *s = &slots[ready[i].data.u32];
      if (s->tcp < 0) {
        ssize_t got = recv(s->dns, m, sizeof m, MSG_DONTWAIT);
        if (got < 16) continue;
        struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        memcpy(&there.sin_addr, m + got - 4, 4);
        s->tcp = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        s->since = now_ns();
        connect(s->tcp, (struct sockaddr *)&there, sizeof there);
        struct epoll_event e = {.events = EPOLLOUT, .data.u32 = ready[i].data.u32};
        epoll_ctl(poller, EPOLL_CTL_ADD, s->tcp, &e);
      } else {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(s->tcp, SOL_SOCKET, SO_ERROR, &error, &size);
        sample(now_ns() - s->since);
        if (error == 0) ok++;
        else refused++;
        goto next;
      }
      continue;
    next:
      reset(s->tcp);
      s->tcp = -1;
      done++;
      if (started >= count) continue;
      send(s->dns, m, query(m, (uint16_t)started, first + started), 0);
      s->since = now_ns();
      started++;
    }
    for (unsigned i = 0; i < inflight && n == 0; i++) {
      struct slot *s = &slots[i];
      if (s->since == 0 || now_ns() - s->since < CONNECT_MS * 1000000ull) continue;
      if (s->tcp < 0) unanswered++;
      else lost++, reset(s->tcp);
      s->tcp = -1;
      s->since = 0; /* this slot is given up */
      done++;
    }
  }
  printf("{\"ok\":%u,\"refused\":%u,\"lost\":%u,\"unanswered\":%u,", ok, refused, lost, unanswered);
  print_samples();
  return 0;
}

/* `answers`: whatever comes is answered with a few bytes; else it is discarded. */
_Noreturn static int serve(int port, int answers) {
  struct sockaddr_in any = address_of("0.0.0.0", port);
  int fd = socket_to(SOCK_STREAM, NULL), on = 1, poller = epoll_create1(0);
  setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on); /* more of us where one may not have enough files */
  if (bind(fd, (struct sockaddr *)&any, sizeof any) < 0 || listen(fd, 4096) < 0) fail("listen");
  struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
  epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
  puts("ready");
  fflush(stdout);
  static uint8_t sink[256 * 1024];
  for (struct epoll_event ready[64];;) {
    int n = epoll_wait(poller, ready, 64, -1);
    for (int i = 0; i < n; i++) {
      if (ready[i].data.fd != fd) {
        if (recv(ready[i].data.fd, sink, sizeof sink, 0) <= 0) close(ready[i].data.fd);
        else if (answers) send(ready[i].data.fd, "\x16\x03\x03\x00\x01\x02", 6, MSG_NOSIGNAL);
        continue;
      }
      int peer = accept(fd, NULL, NULL);
      struct epoll_event p = {.events = EPOLLIN, .data.fd = peer};
      if (peer >= 0) epoll_ctl(poller, EPOLL_CTL_ADD, peer, &p);
    }
  }
}

static int connects(const char *text, int port, unsigned count, unsigned step) {
  struct sockaddr_in to = address_of(text, port);
  uint32_t base = ntohl(to.sin_addr.s_addr);
  unsigned ok = 0, refused = 0, other = 0;
  uint64_t begin = now_ns();
  for (unsigned i = 0; i < count; i++) {
    to.sin_addr.s_addr = htonl(base + i * step);
    int fd = socket_to(SOCK_STREAM, NULL);
    struct timeval limit = {.tv_sec = 2};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    uint64_t from = now_ns();
    int failed = connect(fd, (struct sockaddr *)&to, sizeof to);
    sample(now_ns() - from);
    if (!failed) ok++;
    else if (errno == ECONNREFUSED) refused++;
    else other++;
    reset(fd);
  }
  printf("{\"ok\":%u,\"refused\":%u,\"other\":%u,\"perSecond\":%.0f,", ok, refused, other, count * 1e9 / (double)(now_ns() - begin));
  print_samples();
  return 0;
}

static int hello(const char *text, int port, unsigned count, const char *hex) {
  static uint8_t data[64 * 1024], answer[64];
  size_t length = strlen(hex) / 2;
  unsigned octet, ok = 0, reset_by_peer = 0, other = 0;
  if (length > sizeof data) fail("hello");
  for (size_t i = 0; i < length; i++) data[i] = sscanf(hex + 2 * i, "%2x", &octet) == 1 ? (uint8_t)octet : 0;
  struct sockaddr_in to = address_of(text, port);
  uint64_t begin = now_ns();
  for (unsigned i = 0; i < count; i++) {
    int fd = socket_to(SOCK_STREAM, NULL), on = 1;
    struct timeval limit = {.tv_sec = 2};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    uint64_t from = now_ns();
    if (length >= 43 && data[0] == 22) memcpy(data + 11, &from, sizeof from); /* a ClientHello's random */
    ssize_t got = connect(fd, (struct sockaddr *)&to, sizeof to);
    if (got == 0) got = send(fd, data, length, MSG_NOSIGNAL);
    if (got > 0) got = recv(fd, answer, sizeof answer, 0);
    sample(now_ns() - from);
    if (got > 0) ok++;
    else if (errno == ECONNRESET || errno == ECONNREFUSED) reset_by_peer++;
    else other++;
    reset(fd);
  }
  printf("{\"ok\":%u,\"reset\":%u,\"other\":%u,\"perSecond\":%.0f,", ok, reset_by_peer, other, count * 1e9 / (double)(now_ns() - begin));
  print_samples();
  return 0;
}

/* Half-open conversations: a TLS record is begun and drips, one byte of one connection after the other, until the time is over. */
static int drip(const char *text, int port, unsigned from, unsigned to_pod, unsigned per_pod, unsigned ms) {
  enum { OPENED_PER_MS = 1, DRIPS_PER_MS = 1 };
  struct sockaddr_in base = address_of(text, port);
  unsigned pods = to_pod - from + 1, total = pods * per_pod, failed = 0, ended = 0, drips = 0;
  int *fds = calloc(total, sizeof *fds);
  if (fds == NULL) fail("calloc");
  uint64_t begin = now_ns();
  for (unsigned i = 0; i < total; i++) {
    char device[16];
    struct sockaddr_in to = base;
    struct timespec rest = {.tv_nsec = 1000000};
    while (i >= (now_ns() - begin) / 1000000u * OPENED_PER_MS) nanosleep(&rest, NULL);
    struct timeval limit = {.tv_sec = 1};
    int length = snprintf(device, sizeof device, "p%u", from + i % pods), on = 1;
    to.sin_addr.s_addr = htonl(ntohl(base.sin_addr.s_addr) + from + i % pods);
    fds[i] = socket(AF_INET, SOCK_STREAM, 0);
    if (fds[i] < 0) fail("socket");
    setsockopt(fds[i], SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (setsockopt(fds[i], SOL_SOCKET, SO_BINDTODEVICE, device, (socklen_t)length) < 0) fail(device);
    if (connect(fds[i], (struct sockaddr *)&to, sizeof to) < 0 || send(fds[i], "\x16\x03\x01\x02\x00\x01", 6, MSG_NOSIGNAL) < 0) failed++;
  }
  uint64_t opened = now_ns(), now;
  while ((now = now_ns()) < opened + ms * 1000000ull) {
    if (drips >= (now - opened) / 1000000u * DRIPS_PER_MS) {
      struct timespec rest = {.tv_nsec = 1000000};
      nanosleep(&rest, NULL);
      continue;
    }
    int *fd = &fds[drips++ % total];
    if (*fd < 0 || send(*fd, "\x00", 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1) continue;
    if (errno == EAGAIN) continue;
    close(*fd);
    *fd = -1;
    ended++;
  }
  printf("{\"connections\":%u,\"failed\":%u,\"ended\":%u,\"openMs\":%.0f}\n", total, failed, ended, (double)(opened - begin) / 1e6);
  return 0;
}

static int stream(const char *text, int port, unsigned ms) {
  struct sockaddr_in to = address_of(text, port);
  int fd = socket_to(SOCK_STREAM, &to);
  static uint8_t data[128 * 1024];
  uint64_t bytes = 0, begin = now_ns(), now;
  while ((now = now_ns()) < begin + ms * 1000000ull) {
    ssize_t sent = send(fd, data, sizeof data, 0);
    if (sent < 0) fail("send");
    bytes += (uint64_t)sent;
  }
  reset(fd);
  printf("{\"bytes\":%llu,\"gigabits\":%.4f}\n", (unsigned long long)bytes, (double)bytes * 8 / (double)(now - begin));
  return 0;
}

static int flood(const char *text, int port, unsigned rate, unsigned ms, unsigned spread) {
  enum { BATCH = 32 };
  struct sockaddr_in to[BATCH], base = address_of(text, port);
  struct mmsghdr batch[BATCH] = {0};
  struct iovec data = {.iov_base = "flood", .iov_len = 5};
  int fd = socket_to(SOCK_DGRAM, NULL), size = 8 << 20;
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  unsigned long sent = 0;
  uint64_t begin = now_ns(), end = begin + ms * 1000000ull, now;
  while ((now = now_ns()) < end) {
    if (rate > 0 && (double)sent > (double)(now - begin) * rate / 1e9) {
      struct timespec rest = {.tv_nsec = BATCH * 1000000000ll / rate / 2};
      nanosleep(&rest, NULL);
      continue;
    }
    for (unsigned i = 0; i < BATCH; i++) {
      to[i] = base;
      to[i].sin_addr.s_addr = htonl(ntohl(base.sin_addr.s_addr) + (uint32_t)(sent + i) % spread);
      batch[i].msg_hdr = (struct msghdr){.msg_name = &to[i], .msg_namelen = sizeof to[i], .msg_iov = &data, .msg_iovlen = 1};
    }
    int n = sendmmsg(fd, batch, BATCH, 0);
    if (n > 0) sent += (unsigned long)n;
    else if (errno != ECONNREFUSED && errno != EHOSTUNREACH && errno != EAGAIN && errno != ENOBUFS) fail("sendmmsg");
  }
  printf("{\"sent\":%lu,\"perSecond\":%.0f}\n", sent, (double)sent * 1e9 / (double)(now - begin));
  return 0;
}

static size_t attribute(uint8_t *at, uint16_t type, const void *data, size_t length) {
  struct nlattr a = {.nla_len = (uint16_t)(sizeof a + length), .nla_type = type};
  memcpy(at, &a, sizeof a);
  memcpy(at + sizeof a, data, length);
  return (sizeof a + length + 3) & ~(size_t)3;
}

/* IPSET_CMD_TEST (linux/netfilter/ipset/ip_set.h) of a hash:ip set: is the address in it? */
static int in_set(int fd, const char *set, struct in_addr address) {
  uint8_t m[256] = {0}, ip[8], data[12], reply[512];
  const uint8_t protocol = 6;
  size_t at = sizeof(struct nlmsghdr) + sizeof(struct nfgenmsg);
  size_t ip_length = attribute(ip, 1 | NLA_F_NET_BYTEORDER, &address, 4);
  size_t data_length = attribute(data, 1 | NLA_F_NESTED, ip, ip_length);
  at += attribute(m + at, 1, &protocol, 1);
  at += attribute(m + at, 2, set, strlen(set) + 1);
  at += attribute(m + at, 7 | NLA_F_NESTED, data, data_length);
  struct nlmsghdr head = {.nlmsg_len = (uint32_t)at, .nlmsg_type = NFNL_SUBSYS_IPSET << 8 | 11, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK};
  struct nfgenmsg family = {.nfgen_family = AF_INET};
  memcpy(m, &head, sizeof head);
  memcpy(m + sizeof head, &family, sizeof family);
  if (send(fd, m, at, 0) < 0 || recv(fd, reply, sizeof reply, 0) < (ssize_t)(sizeof head + sizeof(int))) fail("ipset test");
  int error;
  memcpy(&error, reply + sizeof head, sizeof error);
  if (error != 0 && error != -4103) { /* IPSET_ERR_EXIST: not in the set */
    errno = error < -4096 ? EINVAL : -error;
    fail(set);
  }
  return error == 0;
}

/* When it was so; 0: it was not. */
static uint64_t wait_in_set(int fd, const char *set, struct in_addr address, int wanted, uint64_t until) {
  while (now_ns() < until) {
    struct timespec pause = {.tv_nsec = 50000}; /* the lock of the sets is the agent's, too */
    nanosleep(&pause, NULL);
    if (in_set(fd, set, address) == wanted) return now_ns();
  }
  return 0;
}

static int change(const char *from, const char *to, const char *set, const char *text, int wanted) {
  struct sockaddr_in address = address_of(text, 0);
  int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
  if (fd < 0) fail("netlink");
  if (in_set(fd, set, address.sin_addr) == wanted) {
    fprintf(stderr, "load: %s is as wanted before the change\n", text);
    return 1;
  }
  uint64_t begin = now_ns();
  if (rename(from, to) < 0) fail("rename");
  uint64_t at = wait_in_set(fd, set, address.sin_addr, wanted, begin + CHANGE_MS * 1000000ull);
  printf("{\"us\":%.0f}\n", at == 0 ? -1.0 : (double)(at - begin) / 1000);
  return 0;
}

static int seen(const char *set, const char *text, int wanted) {
  struct sockaddr_in address = address_of(text, 0);
  int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
  if (fd < 0) fail("netlink");
  if (in_set(fd, set, address.sin_addr) == wanted) {
    fprintf(stderr, "load: %s is as wanted before the change\n", text);
    return 1;
  }
  puts("ready");
  fflush(stdout);
  uint64_t at = wait_in_set(fd, set, address.sin_addr, wanted, now_ns() + SEEN_MS * 1000000ull);
  printf("{\"at\":%.1f}\n", at == 0 ? -1.0 : (double)at / 1000);
  return 0;
}

static unsigned number(const char *text) { return (unsigned)strtoul(text, NULL, 10); }

int main(int argc, char **argv) {
  prctl(PR_SET_TIMERSLACK, 1ul);
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
  }
  const char *command = argc > 1 ? argv[1] : "";
  char **a = argv + 2;
  int n = argc - 2;
  if (!strcmp(command, "answer") && n == 1) return answer(atoi(a[0]));
  if (!strcmp(command, "ask") && n == 5) return ask(a[0], number(a[1]), number(a[2]), number(a[3]), number(a[4]));
  if (!strcmp(command, "teach") && n == 4) return teach(a[0], number(a[1]), number(a[2]), number(a[3]));
  if (!strcmp(command, "first") && n == 5) return first_connect(a[0], atoi(a[1]), number(a[2]), number(a[3]), number(a[4]));
  if (!strcmp(command, "serve") && n == 1) return serve(atoi(a[0]), 0);
  if (!strcmp(command, "reply") && n == 1) return serve(atoi(a[0]), 1);
  if (!strcmp(command, "hello") && n == 4) return hello(a[0], atoi(a[1]), number(a[2]), a[3]);
  if (!strcmp(command, "connect") && n == 4) return connects(a[0], atoi(a[1]), number(a[2]), number(a[3]));
  if (!strcmp(command, "drip") && n == 6) return drip(a[0], atoi(a[1]), number(a[2]), number(a[3]), number(a[4]), number(a[5]));
  if (!strcmp(command, "stream") && n == 3) return stream(a[0], atoi(a[1]), number(a[2]));
  if (!strcmp(command, "flood") && n == 5) return flood(a[0], atoi(a[1]), number(a[2]), number(a[3]), number(a[4]));
  if (!strcmp(command, "change") && n == 5) return change(a[0], a[1], a[2], a[3], atoi(a[4]));
  if (!strcmp(command, "seen") && n == 3) return seen(a[0], a[1], atoi(a[2]));
  fprintf(stderr, "load: %s: no such command, or not its arguments; they are listed in load.c\n", command);
  return 2;
}
