/*
 * One NFQUEUE: a netlink socket, the packets received and not settled, and the messages in between.
 *
 * Two threads use a queue: the worker (through addon.c) and the watchdog. `lock` guards everything but `options`; the
 * functions marked "takes the lock" do so themselves. The worker never holds it while JavaScript runs.
 *
 * Losses: NETLINK_NO_ENOBUFS is set. Without it one overrun makes netlink drop *everything* until the socket has been
 * read empty (NETLINK_S_CONGESTED), with it only what does not fit; and nothing is hidden, because the kernel numbers
 * the packets of a queue one by one and a packet that did not fit leaves a hole, which is counted in `gaps`. ENOBUFS
 * is counted too, for kernels that refuse the option.
 */
#ifndef NAMEGATE_QUEUE_H
#define NAMEGATE_QUEUE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "netlink.h"
#include "outstanding.h"

#define NG_BATCH_MAX 64
#define NG_RECORD_WORDS 12
#define NG_COPY_RANGE_MAX 65531u /* a netlink attribute's length has 16 bits, header included */
#define NG_PAYLOAD_MAX 65531u
/* nlmsghdr, nfgenmsg and the attributes before the payload: about 180 bytes in Linux 6.18; the rest is for later ones. */
#define NG_SLOT_OVERHEAD 512u

enum { NG_DROP = 0, NG_ACCEPT = 1, NG_REPEAT = 4 };

enum ng_record_word {
    NG_RECORD_ID,
    NG_RECORD_MARK,
    NG_RECORD_INDEV,
    NG_RECORD_OUTDEV,
    NG_RECORD_PHYSINDEV,
    NG_RECORD_PHYSOUTDEV,
    NG_RECORD_OFFSET,
    NG_RECORD_LENGTH,
    NG_RECORD_FULL_LENGTH,
    NG_RECORD_HOOK, /* hook number << 16 | ethertype */
    NG_RECORD_SKB_INFO,
    NG_RECORD_RESERVED,
};

struct ng_queue_options {
    uint32_t copy_range;
    uint32_t max_length;
    uint32_t receive_buffer;
    uint32_t deadline_ms;
    uint32_t deadline_verdict; /* NG_DROP or NG_ACCEPT */
    uint16_t number;
    bool gso;
    bool fail_open;
};

struct ng_verdict {
    uint32_t id;
    uint32_t verdict;
    uint32_t mark;
    uint32_t payload_length; /* <= NG_PAYLOAD_MAX */
    const uint8_t *payload;  /* NULL: the packet stays as it is */
};

struct ng_queue_stats {
    uint64_t received;
    uint64_t settled;
    uint64_t gaps;
    uint64_t enobufs;
    uint64_t rebinds;
    uint64_t late;    /* settled by the watchdog, or because the table was full */
    uint64_t unknown; /* settled by JavaScript, but not (or no longer) outstanding */
    uint64_t refused; /* the kernel answered a verdict with an error: it had dropped the packet itself */
};

struct ng_queue {
    struct ng_queue_options options;
    pthread_mutex_t lock;
    struct ng_netlink socket;
    struct ng_outstanding outstanding;
    struct ng_queue_stats stats;
    uint64_t progress; /* the worker's receive calls: what the watchdog looks at */
    uint32_t sequence;
    /*
     * The kernel's ids start again at 1 with every socket. Ours go on: id = kernel's id + id_base, so that a packet held
     * in a lost socket can never be taken for a new one.
     */
    uint32_t id_base;
    uint32_t last_id;
    int failed; /* errno of a socket that must be opened again, 0 while it works */
    uint8_t *send_buffer;
    size_t send_used;
    uint32_t pending_count;
    uint32_t pending[NG_BATCH_MAX]; /* ids in send_buffer */
};

/* Where packets are received to. The owner gives the memory; messages and parts point into it. */
struct ng_batch {
    uint8_t *packets; /* slots * slot bytes */
    uint32_t *records; /* slots * NG_RECORD_WORDS */
    uint32_t slot;
    uint32_t slots; /* 1 .. NG_BATCH_MAX */
    struct mmsghdr messages[NG_BATCH_MAX];
    struct iovec parts[NG_BATCH_MAX];
};

/* ---- pure: encoding and parsing ---- */

/* nfnetlink_queue's BIND with queue length and flags, acknowledged. Writes NG_BIND_BYTES. */
#define NG_BIND_BYTES 52
size_t ng_encode_bind(uint8_t *out, const struct ng_queue_options *options, uint32_t sequence);
/* The copy mode and range: packets flow from here on. Not acknowledged. Writes NG_COPY_BYTES. */
#define NG_COPY_BYTES 32
size_t ng_encode_copy(uint8_t *out, const struct ng_queue_options *options, uint32_t sequence);
/* PF_BIND, which does nothing since Linux 3.8 but needs CAP_NET_ADMIN. Writes NG_PROBE_BYTES. */
#define NG_PROBE_BYTES 28
size_t ng_encode_probe(uint8_t *out, uint32_t sequence);

/* One NFQNL_MSG_VERDICT; returns its bytes, or 0 when it does not fit into `capacity` or its payload is too long. */
#define NG_VERDICT_BYTES_MAX 44 /* without payload bytes */
size_t ng_encode_verdict(uint8_t *out, size_t capacity, uint16_t queue, const struct ng_verdict *verdict);

enum ng_parsed { NG_PACKET, NG_ANSWER, NG_BAD };
/*
 * One netlink message of `length` bytes (cut or hostile ones too). NG_PACKET: `record` is filled, its offset counts from
 * `data`; length 0 when there is no payload. NG_ANSWER: an NLMSG_ERROR; record[0] is its errno (positive, 0 = ACK) and
 * record[1] the nlmsg_type it answers. NG_BAD: anything else.
 */
enum ng_parsed ng_parse(const uint8_t *data, size_t length, uint32_t record[NG_RECORD_WORDS]);

/* ---- the queue ---- */

uint32_t ng_queue_slot_bytes(uint32_t copy_range);
void ng_batch_init(struct ng_batch *batch, uint8_t *packets, uint32_t *records, uint32_t slot, uint32_t slots);

/* Memory only: the socket stays closed. 0 or -ENOMEM. */
int ng_queue_init(struct ng_queue *queue, const struct ng_queue_options *options);
void ng_queue_free(struct ng_queue *queue);

/*
 * Opens a socket and binds the queue; forgets what an earlier socket held (the kernel has dropped it). Takes the lock.
 * 0, or negative: -EPERM without CAP_NET_ADMIN, -EBUSY when another socket listens on this queue, -EOPNOTSUPP.
 */
int ng_queue_open(struct ng_queue *queue);

/* Settles everything held or waiting with the deadline's verdict and closes the socket. Takes the lock. */
void ng_queue_close(struct ng_queue *queue);

/*
 * Receives one batch, makes the packets outstanding and fills their records (offset counts from batch->packets).
 * Returns the number of records; *datagrams tells how much was read (0: nothing waits). Takes the lock.
 */
uint32_t ng_queue_receive(struct ng_queue *queue, struct ng_batch *batch, uint64_t now_ms, uint32_t *datagrams);

/* Settles what is outstanding of these, in as few sendmsg as fit; the rest is counted as unknown. Takes the lock. */
void ng_queue_settle(struct ng_queue *queue, const struct ng_verdict *verdicts, uint32_t count);

/* A copy of the counters, the packets outstanding, and `failed`. Takes the lock. */
struct ng_queue_stats ng_queue_look(struct ng_queue *queue, uint32_t *held, int *failed);

/* ---- with the lock held ---- */

uint32_t ng_queue_receive_locked(struct ng_queue *queue, struct ng_batch *batch, uint64_t now_ms, uint32_t *datagrams);
/* Settles what came at `until_ms` or before with the deadline's verdict; returns how many. */
uint32_t ng_queue_expire_locked(struct ng_queue *queue, uint64_t until_ms);
/* Receives all that waits and settles it so, at once. A slot of NG_DISCARD_SLOT will do: only ids are read. */
#define NG_DISCARD_SLOT 256
uint32_t ng_queue_discard_locked(struct ng_queue *queue, struct ng_batch *batch, uint64_t now_ms);

#endif
