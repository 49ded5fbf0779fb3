#include "queue.h"

#include <errno.h>
#include <netinet/in.h> /* before linux/netfilter.h, which then leaves its own copy out */
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#ifndef NETLINK_NO_ENOBUFS
#define NETLINK_NO_ENOBUFS 5
#endif

/* One sendmsg: 64 verdicts without payload, or one with the largest. The system's default send buffer is 208 KiB. */
#define SEND_BYTES (NG_PAYLOAD_MAX + 1024u)
#define SEND_TRIES 3
#define ATTRIBUTE_HEADER sizeof(struct nlattr)
#define ATTRIBUTE_TYPE 0x3fffu /* without the nested and byte order bits */
#define MESSAGE(kind) ((uint16_t)((NFNL_SUBSYS_QUEUE << 8) | (kind)))

_Static_assert((int)NG_DROP == NF_DROP && (int)NG_ACCEPT == NF_ACCEPT && (int)NG_REPEAT == NF_REPEAT, "the kernel's numbers");

static size_t align4(size_t length) {
    return (length + 3) & ~(size_t)3;
}

/* ---- encoding ---- */

static size_t put_header(uint8_t *out, uint16_t type, uint16_t flags, uint32_t sequence, uint16_t queue) {
    struct nlmsghdr header = {.nlmsg_type = type, .nlmsg_flags = flags, .nlmsg_seq = sequence};
    struct nfgenmsg family = {.version = NFNETLINK_V0, .res_id = htons(queue)};
    memcpy(out, &header, sizeof header);
    memcpy(out + sizeof header, &family, sizeof family);
    return sizeof header + sizeof family;
}

/* Returns the bytes taken, padding (zeroed) included. */
static size_t put_attribute(uint8_t *out, uint16_t type, const void *value, size_t length) {
    struct nlattr attribute = {.nla_len = (uint16_t)(ATTRIBUTE_HEADER + length), .nla_type = type};
    size_t padded = align4(length);
    memcpy(out, &attribute, sizeof attribute);
    memcpy(out + ATTRIBUTE_HEADER, value, length);
    memset(out + ATTRIBUTE_HEADER + length, 0, padded - length);
    return ATTRIBUTE_HEADER + padded;
}

static size_t put_word(uint8_t *out, uint16_t type, uint32_t value) {
    uint32_t big_endian = htonl(value);
    return put_attribute(out, type, &big_endian, sizeof big_endian);
}

static size_t finish(uint8_t *out, size_t length) {
    uint32_t total = (uint32_t)length;
    memcpy(out, &total, sizeof total); /* nlmsg_len is the first field */
    return length;
}

static size_t put_command(uint8_t *out, uint8_t command, uint16_t family) {
    struct nfqnl_msg_config_cmd value = {.command = command, .pf = htons(family)};
    return put_attribute(out, NFQA_CFG_CMD, &value, sizeof value);
}

size_t ng_encode_bind(uint8_t *out, const struct ng_queue_options *options, uint32_t sequence) {
    uint32_t mask = NFQA_CFG_F_GSO | NFQA_CFG_F_FAIL_OPEN;
    uint32_t flags = (options->gso ? (uint32_t)NFQA_CFG_F_GSO : 0) | (options->fail_open ? (uint32_t)NFQA_CFG_F_FAIL_OPEN : 0);
    size_t n = put_header(out, MESSAGE(NFQNL_MSG_CONFIG), NLM_F_REQUEST | NLM_F_ACK, sequence, options->number);
    n += put_command(out + n, NFQNL_CFG_CMD_BIND, AF_UNSPEC);
    n += put_word(out + n, NFQA_CFG_QUEUE_MAXLEN, options->max_length);
    n += put_word(out + n, NFQA_CFG_MASK, mask);
    n += put_word(out + n, NFQA_CFG_FLAGS, flags);
    return finish(out, n);
}

size_t ng_encode_copy(uint8_t *out, const struct ng_queue_options *options, uint32_t sequence) {
    struct nfqnl_msg_config_params params = {.copy_range = htonl(options->copy_range), .copy_mode = NFQNL_COPY_PACKET};
    size_t n = put_header(out, MESSAGE(NFQNL_MSG_CONFIG), NLM_F_REQUEST, sequence, options->number);
    n += put_attribute(out + n, NFQA_CFG_PARAMS, &params, sizeof params);
    return finish(out, n);
}

size_t ng_encode_probe(uint8_t *out, uint32_t sequence) {
    size_t n = put_header(out, MESSAGE(NFQNL_MSG_CONFIG), NLM_F_REQUEST | NLM_F_ACK, sequence, 0);
    n += put_command(out + n, NFQNL_CFG_CMD_PF_BIND, AF_INET);
    return finish(out, n);
}

size_t ng_encode_verdict(uint8_t *out, size_t capacity, uint16_t queue, const struct ng_verdict *verdict) {
    if (verdict->payload_length > NG_PAYLOAD_MAX) return 0;
    bool replaced = verdict->payload != NULL && verdict->payload_length > 0;
    if (capacity < NG_VERDICT_BYTES_MAX + (replaced ? align4(verdict->payload_length) : 0)) return 0;

    struct nfqnl_msg_verdict_hdr value = {.verdict = htonl(verdict->verdict), .id = htonl(verdict->id)};
    size_t n = put_header(out, MESSAGE(NFQNL_MSG_VERDICT), NLM_F_REQUEST, 0, queue);
    n += put_attribute(out + n, NFQA_VERDICT_HDR, &value, sizeof value);
    if (verdict->verdict == NG_REPEAT || (verdict->verdict == NG_ACCEPT && verdict->mark != 0))
        n += put_word(out + n, NFQA_MARK, verdict->mark);
    if (replaced) n += put_attribute(out + n, NFQA_PAYLOAD, verdict->payload, verdict->payload_length);
    return finish(out, n);
}

/* ---- parsing ---- */

static uint16_t load16(const uint8_t *at) {
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static uint32_t load32(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static enum ng_parsed parse_answer(const uint8_t *data, size_t length, uint32_t *record) {
    struct nlmsgerr answer;
    if (length < NLMSG_HDRLEN + sizeof answer) return NG_BAD;
    memcpy(&answer, data + NLMSG_HDRLEN, sizeof answer);
    if (answer.error > 0 || answer.error < -4095) return NG_BAD;
    record[0] = (uint32_t)-answer.error;
    record[1] = answer.msg.nlmsg_type;
    return NG_ANSWER;
}

enum ng_parsed ng_parse(const uint8_t *data, size_t length, uint32_t record[NG_RECORD_WORDS]) {
    const size_t headers = NLMSG_HDRLEN + sizeof(struct nfgenmsg);
    memset(record, 0, NG_RECORD_WORDS * sizeof *record);
    if (length < NLMSG_HDRLEN) return NG_BAD;
    uint32_t claimed = load32(data);
    if (claimed < length) length = claimed; /* a cut message claims more than there is */
    uint16_t type = load16(data + 4);
    if (type == NLMSG_ERROR) return parse_answer(data, length, record);
    if (type != MESSAGE(NFQNL_MSG_PACKET) || length < headers) return NG_BAD;

    bool identified = false;
    size_t at = headers;
    while (length - at >= ATTRIBUTE_HEADER) {
        size_t size = load16(data + at);
        uint32_t kind = load16(data + at + 2) & ATTRIBUTE_TYPE;
        if (size < ATTRIBUTE_HEADER) break;
        size_t value = at + ATTRIBUTE_HEADER;
        size_t bytes = size - ATTRIBUTE_HEADER;
        bool cut = size > length - at;
        if (kind == NFQA_PAYLOAD) {
            record[NG_RECORD_OFFSET] = (uint32_t)value;
            record[NG_RECORD_LENGTH] = (uint32_t)(cut ? length - value : bytes);
            if (record[NG_RECORD_FULL_LENGTH] == 0) record[NG_RECORD_FULL_LENGTH] = (uint32_t)bytes;
        }
        if (cut) break;
        if (kind == NFQA_PACKET_HDR && bytes >= 7) { /* be32 id, be16 ethertype, u8 hook; packed */
            record[NG_RECORD_ID] = ntohl(load32(data + value));
            record[NG_RECORD_HOOK] = (uint32_t)data[value + 6] << 16 | ntohs(load16(data + value + 4));
            identified = true;
        } else if (bytes >= 4) {
            uint32_t word = ntohl(load32(data + value));
            switch (kind) {
            case NFQA_MARK: record[NG_RECORD_MARK] = word; break;
            case NFQA_IFINDEX_INDEV: record[NG_RECORD_INDEV] = word; break;
            case NFQA_IFINDEX_OUTDEV: record[NG_RECORD_OUTDEV] = word; break;
            case NFQA_IFINDEX_PHYSINDEV: record[NG_RECORD_PHYSINDEV] = word; break;
            case NFQA_IFINDEX_PHYSOUTDEV: record[NG_RECORD_PHYSOUTDEV] = word; break;
            case NFQA_CAP_LEN: record[NG_RECORD_FULL_LENGTH] = word; break;
            case NFQA_SKB_INFO: record[NG_RECORD_SKB_INFO] = word; break;
            default: break;
            }
        }
        size_t step = align4(size);
        if (step > length - at) break;
        at += step;
    }
    return identified ? NG_PACKET : NG_BAD;
}

/* ---- the queue ---- */

uint32_t ng_queue_slot_bytes(uint32_t copy_range) {
    return (copy_range + NG_SLOT_OVERHEAD + 63u) & ~63u;
}

void ng_batch_init(struct ng_batch *batch, uint8_t *packets, uint32_t *records, uint32_t slot, uint32_t slots) {
    *batch = (struct ng_batch){.packets = packets, .records = records, .slot = slot, .slots = slots};
    for (uint32_t i = 0; i < slots; i++) {
        batch->parts[i] = (struct iovec){.iov_base = packets + (size_t)i * slot, .iov_len = slot};
        batch->messages[i].msg_hdr = (struct msghdr){.msg_iov = &batch->parts[i], .msg_iovlen = 1};
    }
}

int ng_queue_init(struct ng_queue *queue, const struct ng_queue_options *options) {
    *queue = (struct ng_queue){.options = *options, .socket = {.fd = -1}};
    queue->send_buffer = malloc(SEND_BYTES);
    if (queue->send_buffer == NULL || !ng_outstanding_init(&queue->outstanding, options->max_length) ||
        pthread_mutex_init(&queue->lock, NULL) != 0) {
        free(queue->send_buffer);
        ng_outstanding_free(&queue->outstanding);
        return -ENOMEM;
    }
    return 0;
}

void ng_queue_free(struct ng_queue *queue) {
    ng_netlink_close(&queue->socket);
    ng_outstanding_free(&queue->outstanding);
    free(queue->send_buffer);
    queue->send_buffer = NULL;
    pthread_mutex_destroy(&queue->lock);
}

/* Sends an acknowledged configuration message; before NFQNL_COPY_PACKET nothing but the answer can come. */
static int configure(struct ng_netlink *socket, const uint8_t *message, size_t length) {
    uint8_t reply[512];
    uint32_t record[NG_RECORD_WORDS];
    ssize_t bytes = ng_netlink_transact(socket, message, length, reply, sizeof reply, 1);
    if (bytes < 0) return (int)bytes;
    if (ng_parse(reply, (size_t)bytes, record) != NG_ANSWER) return -EPROTO;
    return -(int)record[0];
}

static int bind_queue(struct ng_queue *queue, struct ng_netlink *socket) {
    uint8_t message[64];
    int on = 1;
    (void)setsockopt(socket->fd, SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof on);
    int bound = configure(socket, message, ng_encode_bind(message, &queue->options, ++queue->sequence));
    if (bound == -EPERM) {
        /* The kernel says EPERM both to a process without the capability and to the second owner of a queue. */
        int allowed = configure(socket, message, ng_encode_probe(message, ++queue->sequence));
        if (allowed == 0) bound = -EBUSY;
    }
    if (bound < 0) return bound;
    return ng_netlink_send(socket, message, ng_encode_copy(message, &queue->options, ++queue->sequence));
}

int ng_queue_open(struct ng_queue *queue) {
    pthread_mutex_lock(&queue->lock);
    ng_netlink_close(&queue->socket);
    ng_outstanding_clear(&queue->outstanding);
    queue->send_used = queue->pending_count = 0;
    queue->id_base = queue->last_id;
    queue->failed = 0;
    struct ng_netlink socket;
    int status = ng_netlink_open(&socket, NETLINK_NETFILTER, queue->options.receive_buffer);
    if (status == 0) {
        status = bind_queue(queue, &socket);
        if (status < 0) ng_netlink_close(&socket);
        else queue->socket = socket;
    }
    pthread_mutex_unlock(&queue->lock);
    return status;
}

/* One sendmsg. What could not be sent stays outstanding; the watchdog settles it. */
static void flush(struct ng_queue *queue) {
    if (queue->pending_count == 0) return;
    int error = EBADF;
    if (queue->socket.fd >= 0 && queue->failed == 0) {
        for (int i = 0; i < SEND_TRIES; i++) {
            error = -ng_netlink_send(&queue->socket, queue->send_buffer, queue->send_used);
            if (error != ENOBUFS && error != ENOMEM && error != EAGAIN) break;
        }
        if (error == 0) {
            for (uint32_t i = 0; i < queue->pending_count; i++) {
                if (ng_outstanding_remove(&queue->outstanding, queue->pending[i])) queue->stats.settled++;
            }
        } else if (error != ENOBUFS && error != ENOMEM && error != EAGAIN) {
            queue->failed = error;
        }
    }
    queue->send_used = queue->pending_count = 0;
}

static void put_verdict(struct ng_queue *queue, const struct ng_verdict *verdict) {
    struct ng_verdict wire = *verdict;
    wire.id -= queue->id_base;
    for (int i = 0; i < 2; i++) {
        if (queue->pending_count < NG_BATCH_MAX) {
            size_t bytes = ng_encode_verdict(queue->send_buffer + queue->send_used, SEND_BYTES - queue->send_used,
                                             queue->options.number, &wire);
            if (bytes > 0) {
                queue->send_used += align4(bytes);
                queue->pending[queue->pending_count++] = verdict->id;
                return;
            }
        }
        flush(queue);
    }
}

static uint32_t settle_late(struct ng_queue *queue, const uint32_t *ids, uint32_t count) {
    uint64_t before = queue->stats.settled;
    for (uint32_t i = 0; i < count; i++) {
        struct ng_verdict verdict = {.id = ids[i], .verdict = queue->options.deadline_verdict};
        put_verdict(queue, &verdict);
    }
    flush(queue);
    uint64_t settled = queue->stats.settled - before;
    queue->stats.late += settled;
    return (uint32_t)settled;
}

uint32_t ng_queue_expire_locked(struct ng_queue *queue, uint64_t until_ms) {
    uint32_t ids[NG_BATCH_MAX];
    uint32_t total = 0;
    for (;;) {
        uint32_t found = ng_outstanding_oldest(&queue->outstanding, until_ms, ids, NG_BATCH_MAX);
        if (found == 0) return total;
        uint32_t settled = settle_late(queue, ids, found);
        total += settled;
        if (settled == 0) return total; /* not sendable now; the next tick tries again */
    }
}

/* A packet for which the table has no room: the kernel allows maxLength, so only an overtaken bookkeeping gets here. */
static void settle_unlisted(struct ng_queue *queue, uint32_t id) {
    struct ng_verdict verdict = {.id = id, .verdict = queue->options.deadline_verdict};
    put_verdict(queue, &verdict);
    flush(queue);
    queue->stats.late++;
}

static void count_gap(struct ng_queue *queue, uint32_t id) {
    uint32_t step = id - queue->last_id;
    if (step == 0 || step > UINT32_MAX / 2) return; /* not newer */
    queue->stats.gaps += step - 1;
    queue->last_id = id;
}

static void take_answer(struct ng_queue *queue, const uint32_t *record) {
    if (record[0] == 0) return;
    if (record[1] == MESSAGE(NFQNL_MSG_CONFIG)) queue->failed = (int)record[0];
    else queue->stats.refused++;
}

uint32_t ng_queue_receive_locked(struct ng_queue *queue, struct ng_batch *batch, uint64_t now_ms, uint32_t *datagrams) {
    *datagrams = 0;
    if (queue->socket.fd < 0 || queue->failed != 0) return 0;
    int got = recvmmsg(queue->socket.fd, batch->messages, batch->slots, MSG_DONTWAIT, NULL);
    if (got < 0) {
        if (errno == ENOBUFS) queue->stats.enobufs++;
        else if (errno != EAGAIN && errno != EINTR && errno != ENOMEM) queue->failed = errno;
        return 0;
    }
    uint32_t count = 0;
    for (uint32_t i = 0; i < (uint32_t)got; i++) {
        uint32_t *record = batch->records + (size_t)count * NG_RECORD_WORDS;
        const uint8_t *data = batch->parts[i].iov_base;
        switch (ng_parse(data, batch->messages[i].msg_len, record)) {
        case NG_PACKET:
            record[NG_RECORD_ID] += queue->id_base;
            count_gap(queue, record[NG_RECORD_ID]);
            queue->stats.received++;
            if (!ng_outstanding_add(&queue->outstanding, record[NG_RECORD_ID], now_ms)) {
                settle_unlisted(queue, record[NG_RECORD_ID]);
                break;
            }
            record[NG_RECORD_OFFSET] += (uint32_t)(data - batch->packets);
            count++;
            break;
        case NG_ANSWER: take_answer(queue, record); break;
        case NG_BAD: break; /* if it was a packet, its id is missing and counted as a gap */
        }
    }
    *datagrams = (uint32_t)got;
    return count;
}

uint32_t ng_queue_receive(struct ng_queue *queue, struct ng_batch *batch, uint64_t now_ms, uint32_t *datagrams) {
    pthread_mutex_lock(&queue->lock);
    queue->progress++;
    uint32_t count = ng_queue_receive_locked(queue, batch, now_ms, datagrams);
    pthread_mutex_unlock(&queue->lock);
    return count;
}

struct ng_queue_stats ng_queue_look(struct ng_queue *queue, uint32_t *held, int *failed) {
    pthread_mutex_lock(&queue->lock);
    struct ng_queue_stats stats = queue->stats;
    *held = queue->outstanding.count;
    *failed = queue->failed;
    pthread_mutex_unlock(&queue->lock);
    return stats;
}

void ng_queue_settle(struct ng_queue *queue, const struct ng_verdict *verdicts, uint32_t count) {
    pthread_mutex_lock(&queue->lock);
    for (uint32_t i = 0; i < count; i++) {
        if (ng_outstanding_has(&queue->outstanding, verdicts[i].id)) put_verdict(queue, &verdicts[i]);
        else queue->stats.unknown++;
    }
    flush(queue);
    pthread_mutex_unlock(&queue->lock);
}

uint32_t ng_queue_discard_locked(struct ng_queue *queue, struct ng_batch *batch, uint64_t now_ms) {
    uint32_t total = 0;
    uint32_t rounds = queue->options.max_length / batch->slots + 1;
    for (uint32_t datagrams = 1; datagrams > 0 && rounds > 0; rounds--) {
        uint32_t ids[NG_BATCH_MAX];
        uint32_t count = ng_queue_receive_locked(queue, batch, now_ms, &datagrams);
        for (uint32_t i = 0; i < count; i++) ids[i] = batch->records[(size_t)i * NG_RECORD_WORDS + NG_RECORD_ID];
        total += settle_late(queue, ids, count);
    }
    return total;
}

static void settle_waiting(struct ng_queue *queue) {
    enum { SLOTS = 16 };
    uint8_t packets[NG_DISCARD_SLOT * SLOTS];
    uint32_t records[SLOTS * NG_RECORD_WORDS];
    struct ng_batch batch;
    ng_batch_init(&batch, packets, records, NG_DISCARD_SLOT, SLOTS);
    ng_queue_discard_locked(queue, &batch, 0);
}

void ng_queue_close(struct ng_queue *queue) {
    pthread_mutex_lock(&queue->lock);
    if (queue->socket.fd >= 0) {
        ng_queue_expire_locked(queue, UINT64_MAX);
        settle_waiting(queue);
    }
    ng_netlink_close(&queue->socket);
    ng_outstanding_clear(&queue->outstanding);
    pthread_mutex_unlock(&queue->lock);
}
