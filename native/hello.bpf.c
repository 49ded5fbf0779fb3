/*
 * The kernel's copy of what userspace has read before: a ClientHello that was verified once passes the next time without a
 * trip to userspace. Three programs for xt_bpf (`-m bpf --object-pinned`, src/firewall/rules.ts), which sees the packet from
 * its IP header on. Each answers 1 only for what is certain; 0 sends the packet the way that it would go without us.
 *
 *   open    the first packet of a connection under inspection: where the client's stream begins. Answers 0 always.
 *   hello   the client's segments: a whole, well-formed ClientHello at that place, known to be right for this pod, server
 *           and port. Until the server has acknowledged it, nothing else reaches the server unread:
 *   early   what is behind it is dropped, and sent again.
 *   answer  the server's segments: it has acknowledged the hello, so that was no decoy (src/inspect/flows.ts).
 *
 * As soon as userspace sees anything of a connection, all of it is userspace's: `hello` writes that down before the packet
 * is queued. Two CPUs may have packets of one connection at once, so `ends` changes by compare and swap.
 *
 * The reading is stricter than src/inspect/tls.ts, whose hellos include these; src/firewall/hello-key.ts is its mirror.
 * Built with clang; no headers, so that nothing but the compiler is needed. Little-endian, as both of our architectures.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
/* Keeps the compiler from replacing a checked number by another expression, which the verifier would not believe. */
#define CHECKED(x) __asm__ volatile("" : "+r"(x))

struct packet {
    u8 not_read[176]; /* struct __sk_buff */
    u32 gso_size;
};

/* enum bpf_func_id, linux/bpf.h */
static void *(*map_lookup)(void *map, const void *key) = (void *)1;
static long (*map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*map_delete)(void *map, const void *key) = (void *)3;
static u64 (*now_ns)(void) = (void *)5;
static long (*load)(const struct packet *packet, u32 offset, void *to, u64 length) = (void *)26;

#define SNI_MAX 96
#define ALPN_MAX 24
#define VERSIONS_MAX 16

/* src/firewall/hello-key.ts has the same. */
struct hello_key {
    u8 client[16]; /* IPv4 as ::ffff:0:0/96 */
    u8 server[16];
    u8 port[2];
    u8 sni_length, alpn_length, versions_length; /* 0: the hello has no such extension */
    u8 padding[3];
    u8 sni[SNI_MAX]; /* the extensions' bodies */
    u8 alpn[ALPN_MAX];
    u8 versions[VERSIONS_MAX];
};
struct hello {
    u64 until_ns; /* CLOCK_MONOTONIC */
    u64 count;    /* connections that passed by it */
};
extern char known;

struct flow_key {
    u8 client[16];
    u8 server[16];
    u8 client_port[2];
    u8 server_port[2];
};
struct flow {
    u32 begins; /* sequence number of the client's first byte */
    u32 ends;   /* and of the one behind its hello; the same: nothing was seen; less: it is userspace's */
    u64 since_ns;
};
/* begins - ends, where it is userspace's: from its first bytes on; since other ones came after a known hello. */
#define READ 1
#define REPLACED 2
extern char flows;

struct segment {
    u32 sequence, acknowledgement;
    u32 offset, bytes; /* of the payload */
    u8 flags;
};

#define FIN 1
#define SYN 2
#define RST 4
#define ACK 16
#define URG 32

INLINE u32 be16(const u8 *b) { return (u32)b[0] << 8 | b[1]; }
INLINE u32 be32(const u8 *b) { return (u32)b[0] << 24 | (u32)b[1] << 16 | (u32)b[2] << 8 | b[3]; }

/* What read_segment has found: nobody's; one of `key`, of which only flags and numbers are there; a segment without oddities. */
#define NOTHING 0
#define ODD 1
#define PLAIN 2

#define TCP 6
#define EXTENSION_HEADERS_MAX 8 /* as src/capture/decode.ts, so that userspace never reads a segment that we cannot assign */

/* The length of an IPv6 extension header, 0: `type` is none. */
INLINE u32 extension_bytes(u32 type, u32 length) {
    if (type == 0 || type == 43 || type == 60) return (length + 1) * 8;
    return type == 44 ? 8 : type == 51 ? (length + 2) * 4 : 0;
}

/* `back`: the client is its receiver. Fragments have been put together by conntrack. */
INLINE int read_segment(const struct packet *packet, int back, struct flow_key *key, struct segment *s) {
    u8 ip[40], tcp[20];
    u8 *source = back ? key->server : key->client, *destination = back ? key->client : key->server;
    u32 header, total;
    int odd = 0;
    if (load(packet, 0, ip, 20) != 0) return NOTHING;
    if (ip[0] >> 4 == 4) {
        header = (ip[0] & 15) * 4;
        if (header < 20 || ip[9] != TCP || (ip[6] & 0x3f) != 0 || ip[7] != 0) return NOTHING;
        total = be16(ip + 2);
        source[10] = source[11] = destination[10] = destination[11] = 0xff;
        __builtin_memcpy(source + 12, ip + 12, 4);
        __builtin_memcpy(destination + 12, ip + 16, 4);
    } else {
        if (ip[0] >> 4 != 6 || load(packet, 20, ip + 20, 20) != 0) return NOTHING;
        header = 40;
        u32 next = ip[6];
        for (int i = 0; i < EXTENSION_HEADERS_MAX && next != TCP; i++) {
            u8 head[2];
            if (load(packet, header, head, 2) != 0) return NOTHING;
            u32 bytes = extension_bytes(next, head[1]);
            if (bytes == 0) return NOTHING;
            header += bytes;
            next = head[0];
            odd = 1;
        }
        if (next != TCP) return NOTHING;
        total = 40 + be16(ip + 4);
        __builtin_memcpy(source, ip + 8, 16);
        __builtin_memcpy(destination, ip + 24, 16);
    }
    if (load(packet, header, tcp, sizeof tcp) != 0) return NOTHING;
    __builtin_memcpy(back ? key->server_port : key->client_port, tcp, 2);
    __builtin_memcpy(back ? key->client_port : key->server_port, tcp + 2, 2);
    s->sequence = be32(tcp + 4);
    s->acknowledgement = be32(tcp + 8);
    s->flags = tcp[13];
    u32 tcp_header = (tcp[12] >> 4) * 4;
    s->offset = header + tcp_header;
    if (odd || tcp_header < sizeof tcp || s->offset > total) return ODD;
    s->bytes = total - s->offset;
    return PLAIN;
}

/*
 * Loads the body of the extension `type` at `from`, which a policy may ask for. False: it is longer than what is remembered.
 * Whether it is there is asked of `seen`: of an offset the verifier knows that it is not 0, and follows every order of the
 * extensions by itself, for seconds.
 */
#define TAKE(field, maximum, type, from)                                                \
    do {                                                                                \
        if ((seen >> (type) & 1) == 0) break;                                           \
        if (load(packet, (from) - 2, b, 2) != 0) return 0;                              \
        u64 n = be16(b);                                                                \
        CHECKED(n);                                                                     \
        if (n > (maximum)) return 0;                                                    \
        CHECKED(n);                                                                     \
        if (n == 0 || load(packet, (from), key->field, n) != 0) return 0;               \
        key->field##_length = (u8)n;                                                    \
    } while (0)

#define SERVER_NAME 0
#define SIGNATURE_ALGORITHMS 13
#define ALPN 16
#define PRE_SHARED_KEY 41
#define EARLY_DATA 42
#define SUPPORTED_VERSIONS 43
#define RENEGOTIATION_INFO 0xff01
#define TYPES 63 /* types below have a bit each in `seen`; the highest bit is for renegotiation_info */
#define EXTENSIONS_MAX 24

/* The segment is one record that is one ClientHello, without anything that this does not know. */
INLINE int read_hello(const struct packet *packet, const struct segment *s, struct hello_key *key) {
    u8 b[11];
    u32 at = s->offset, end = s->offset + s->bytes;
    if (s->bytes > 16384 + 5 || load(packet, at, b, sizeof b) != 0) return 0;
    if (b[0] != 22 || b[1] != 3 || b[2] > 3 || be16(b + 3) + 5 != s->bytes) return 0;
    if (b[5] != 1 || b[6] != 0 || be16(b + 7) + 9 != s->bytes || be16(b + 9) != 0x0303) return 0;
    at += sizeof b + 32;
    if (load(packet, at, b, 1) != 0 || b[0] > 32) return 0;
    at += 1 + b[0];
    if (load(packet, at, b, 2) != 0) return 0;
    u32 ciphers = be16(b);
    if (ciphers == 0 || (ciphers & 1) != 0) return 0;
    at += 2 + ciphers;
    if (load(packet, at, b, 4) != 0 || b[0] != 1 || b[1] != 0) return 0;
    at += 4;
    if (at + be16(b + 2) != end) return 0;
    u64 seen = 0;
    u32 sni = 0, alpn = 0, versions = 0, signatures = 0;
    for (int i = 0; i < EXTENSIONS_MAX && at != end; i++) {
        if (load(packet, at, b, 4) != 0) return 0;
        u32 type = be16(b), length = be16(b + 2);
        at += 4;
        if (length > end - at) return 0;
        if (type == RENEGOTIATION_INFO) type = TYPES;
        else if (type >= TYPES || type == EARLY_DATA) return 0; /* more comes before an acknowledgement */
        if ((seen >> type & 1) != 0 || (seen >> PRE_SHARED_KEY & 1) != 0) return 0;
        seen |= 1ull << type;
        if (type == SERVER_NAME) sni = at;
        else if (type == ALPN) alpn = at;
        else if (type == SUPPORTED_VERSIONS) versions = at;
        else if (type == SIGNATURE_ALGORITHMS) signatures = at;
        at += length;
    }
    if (at != end) return 0;
    if ((seen >> SIGNATURE_ALGORITHMS & 1) != 0) {
        if (load(packet, signatures - 2, b, 4) != 0) return 0;
        u32 length = be16(b);
        if (length < 4 || (length & 1) != 0 || be16(b + 2) != length - 2) return 0;
    }
    TAKE(sni, SNI_MAX, SERVER_NAME, sni);
    TAKE(alpn, ALPN_MAX, ALPN, alpn);
    TAKE(versions, VERSIONS_MAX, SUPPORTED_VERSIONS, versions);
    return 1;
}

INLINE int is_known(const struct packet *packet, const struct segment *s, const struct flow_key *flow, int count) {
    struct hello_key key;
    __builtin_memset(&key, 0, sizeof key);
    __builtin_memcpy(key.client, flow->client, 16);
    __builtin_memcpy(key.server, flow->server, 16);
    __builtin_memcpy(key.port, flow->server_port, 2);
    if (!read_hello(packet, s, &key)) return 0;
    struct hello *hello = map_lookup(&known, &key);
    if (hello == 0 || hello->until_ns <= now_ns()) return 0;
    if (count) __sync_fetch_and_add(&hello->count, 1);
    return 1;
}

SEC("open") int open_stream(const struct packet *packet) {
    struct flow_key key;
    struct segment s;
    __builtin_memset(&key, 0, sizeof key);
    __builtin_memset(&s, 0, sizeof s);
    int found = read_segment(packet, 0, &key, &s);
    if (found == NOTHING) return 0;
    if ((s.flags & (SYN | ACK | RST | FIN)) != SYN) {
        map_delete(&flows, &key); /* the middle of one that conntrack has forgotten */
        return 0;
    }
    /* Data in a SYN is taken off on its way (RFC 7413) by userspace. */
    u32 begins = s.sequence + 1;
    struct flow flow = {.begins = begins, .ends = found == PLAIN && s.bytes == 0 ? begins : begins - READ, .since_ns = now_ns()};
    map_update(&flows, &key, &flow, 0);
    return 0;
}

INLINE int is_verified(u32 begins, u32 ends) { return (int)(ends - begins) > 0; }

SEC("hello") int known_hello(const struct packet *packet) {
    struct flow_key key;
    struct segment s;
    __builtin_memset(&key, 0, sizeof key);
    __builtin_memset(&s, 0, sizeof s);
    int found = read_segment(packet, 0, &key, &s);
    if (found == NOTHING || (found == PLAIN && s.bytes == 0 && (s.flags & SYN) == 0)) return 0;
    struct flow *flow = map_lookup(&flows, &key);
    if (flow == 0) return 0;
    u32 begins = flow->begins, ends = flow->ends;
    if (found == PLAIN && s.bytes == 0 && s.sequence + 1 == begins) return 0; /* the SYN once more */
    int verified = is_verified(begins, ends);
    /* A loss takes one of several segments, and what is sent again is not known to us: a hello is to be in one. */
    if (found == PLAIN && packet->gso_size == 0 && (s.flags & (SYN | FIN | RST | URG)) == 0 && s.sequence == begins &&
        (ends == begins || s.sequence + s.bytes == ends) && is_known(packet, &s, &key, !verified) &&
        __sync_val_compare_and_swap(&flow->ends, ends, s.sequence + s.bytes) == ends) {
        flow->since_ns = now_ns();
        return 1;
    }
    u32 how = READ;
    if ((ends != begins || __sync_val_compare_and_swap(&flow->ends, ends, begins - READ) != ends) && ends != begins - READ) {
        how = REPLACED;
        flow->ends = begins - how;
    }
    /* Of two SYNs nobody knows which one the server takes: not a byte from before the later one is to reach it. */
    if ((s.flags & SYN) != 0 && (int)(s.sequence + 1 - begins) > 0) {
        flow->begins = s.sequence + 1;
        flow->ends = s.sequence + 1 - how;
    }
    return 0;
}

#define BEHIND_MAX (1u << 20) /* of what is no retransmission */

SEC("early") int behind_hello(const struct packet *packet) {
    struct flow_key key;
    struct segment s;
    __builtin_memset(&key, 0, sizeof key);
    __builtin_memset(&s, 0, sizeof s);
    if (read_segment(packet, 0, &key, &s) != PLAIN || s.bytes == 0) return 0;
    struct flow *flow = map_lookup(&flows, &key);
    return flow != 0 && is_verified(flow->begins, flow->ends) && s.sequence - flow->ends < BEHIND_MAX;
}

SEC("answer") int acknowledged(const struct packet *packet) {
    struct flow_key key;
    struct segment s;
    __builtin_memset(&key, 0, sizeof key);
    __builtin_memset(&s, 0, sizeof s);
    if (read_segment(packet, 1, &key, &s) == NOTHING || (s.flags & (SYN | ACK | RST)) != ACK) return 0;
    struct flow *flow = map_lookup(&flows, &key);
    /* The client's FIN has a number too. */
    if (flow == 0 || !is_verified(flow->begins, flow->ends) || s.acknowledgement - flow->ends > 1) return 0;
    map_delete(&flows, &key);
    return 1;
}

/* Nothing that is called needs the GPL. */
char licence[] SEC("license") = "Apache-2.0";
