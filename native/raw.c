#include "raw.h"

#include <errno.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef IPV6_HDRINCL
#define IPV6_HDRINCL 36
#endif

#define IPV4_HEADER 20
#define IPV4_DESTINATION 16
#define IPV6_HEADER 40
#define IPV6_DESTINATION 24

void ng_raw_init(struct ng_raw *raw) {
    raw->ipv4 = raw->ipv6 = (struct ng_raw_socket){.fd = -1};
    raw->frames = -1;
}

void ng_raw_close(struct ng_raw *raw) {
    if (raw->ipv4.fd >= 0) close(raw->ipv4.fd);
    if (raw->ipv6.fd >= 0) close(raw->ipv6.fd);
    if (raw->frames >= 0) close(raw->frames);
    ng_raw_init(raw);
}

static int open_socket(struct ng_raw_socket *out, int family) {
    int fd = socket(family, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_RAW);
    if (fd < 0) return -errno;
    /* IPPROTO_RAW implies the header; kernels before 4.5 do not know IPV6_HDRINCL. */
    int on = 1;
    if (family == AF_INET) (void)setsockopt(fd, IPPROTO_IP, IP_HDRINCL, &on, sizeof on);
    else (void)setsockopt(fd, IPPROTO_IPV6, IPV6_HDRINCL, &on, sizeof on);
    *out = (struct ng_raw_socket){.fd = fd};
    return 0;
}

static int set_mark(struct ng_raw_socket *out, uint32_t mark) {
    if (out->mark == mark) return 0;
    if (setsockopt(out->fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark) != 0) return -errno;
    out->mark = mark;
    return 0;
}

int ng_raw_send(struct ng_raw *raw, const uint8_t *packet, size_t length, uint32_t mark, const char **call) {
    *call = "sendto";
    if (length == 0) return -EINVAL;
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } to;
    memset(&to, 0, sizeof to);
    socklen_t size;
    struct ng_raw_socket *out;
    switch (packet[0] >> 4) {
    case 4:
        if (length < IPV4_HEADER) return -EINVAL;
        to.v4.sin_family = AF_INET;
        memcpy(&to.v4.sin_addr, packet + IPV4_DESTINATION, sizeof to.v4.sin_addr);
        size = sizeof to.v4;
        out = &raw->ipv4;
        break;
    case 6:
        if (length < IPV6_HEADER) return -EINVAL;
        to.v6.sin6_family = AF_INET6;
        memcpy(&to.v6.sin6_addr, packet + IPV6_DESTINATION, sizeof to.v6.sin6_addr);
        size = sizeof to.v6;
        out = &raw->ipv6;
        break;
    default:
        return -EINVAL;
    }
    if (out->fd < 0) {
        *call = "socket";
        int opened = open_socket(out, to.any.sa_family);
        if (opened < 0) return opened;
    }
    *call = "setsockopt";
    int marked = set_mark(out, mark);
    if (marked < 0) return marked;
    *call = "sendto";
    while (sendto(out->fd, packet, length, 0, &to.any, size) < 0)
        if (errno != EINTR) return -errno;
    return 0;
}

int ng_raw_frame(struct ng_raw *raw, uint32_t interface, const uint8_t *frame, size_t length, const char **call) {
    *call = "socket";
    if (raw->frames < 0) {
        raw->frames = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); /* protocol 0: nothing is received */
        if (raw->frames < 0) return -errno;
    }
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)interface};
    *call = "sendto";
    while (sendto(raw->frames, frame, length, 0, (struct sockaddr *)&to, sizeof to) < 0)
        if (errno != EINTR) return -errno;
    return 0;
}
