/* Encoding against golden bytes (little endian hosts), and the walk over whole, cut and hostile messages. */
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>

#include "../netlink.h"
#include "../queue.h"
#include "check.h"

/* A UDP packet of 45 bytes, copy range 40, with every attribute that is looked at and one that nobody knows. */
static const char PACKET[] =
    "90000000 00030000 00000000 00000000 02000007" /* nlmsghdr 144, nfgenmsg: AF_INET, queue 7 */
    "0b000100 01020304 0800 03 00"                 /* PACKET_HDR id 0x01020304, IPv4, LOCAL_OUT */
    "08000300 00000040"                            /* MARK */
    "08000500 0000000a"                            /* INDEV */
    "08000600 0000000b"                            /* OUTDEV */
    "08000700 0000000c"                            /* PHYSINDEV */
    "08000800 0000000d"                            /* PHYSOUTDEV */
    "08000e00 00000001"                            /* SKB_INFO */
    "08000d00 0000002d"                            /* CAP_LEN */
    "0c00ff3f 00000000 00000000"                   /* unknown attribute */
    "2c000a00 4500002d 00010000 40117c9d 7f000001 7f000001 d4311b58 0019fe2c 61626364 65666768 696a6b6c";

static void encodes(void) {
    uint8_t out[256];
    struct ng_queue_options options = {.number = 0x0102, .copy_range = 2048, .max_length = 4096, .gso = true};
    CHECK_EQUAL(ng_encode_bind(out, &options, 9), NG_BIND_BYTES);
    CHECK_BYTES(out, NG_BIND_BYTES, "34000000 0203 0500 09000000 00000000 00000102 08000100 01000000 08000300 00001000 08000400 00000005 08000500 00000004");
    options.gso = false;
    options.fail_open = true;
    CHECK_EQUAL(ng_encode_bind(out, &options, 9), NG_BIND_BYTES);
    CHECK_BYTES(out + 44, 8, "08000500 00000001");
    CHECK_EQUAL(ng_encode_copy(out, &options, 10), NG_COPY_BYTES);
    CHECK_BYTES(out, NG_COPY_BYTES, "20000000 0203 0100 0a000000 00000000 00000102 09000200 00000800 02000000");
    CHECK_EQUAL(ng_encode_probe(out, 11), NG_PROBE_BYTES);
    CHECK_BYTES(out, NG_PROBE_BYTES, "1c000000 0203 0500 0b000000 00000000 00000000 08000100 03000002");
}

static void encodes_verdicts(void) {
    uint8_t out[256];
    struct ng_verdict verdict = {.id = 0x01020304, .verdict = NG_DROP, .mark = 0x40};
    CHECK_EQUAL(ng_encode_verdict(out, sizeof out, 7, &verdict), 32);
    CHECK_BYTES(out, 32, "20000000 0103 0100 00000000 00000000 00000007 0c000200 00000000 01020304");
    verdict.verdict = NG_ACCEPT;
    CHECK_EQUAL(ng_encode_verdict(out, sizeof out, 7, &verdict), 40);
    CHECK_BYTES(out, 40, "28000000 0103 0100 00000000 00000000 00000007 0c000200 00000001 01020304 08000300 00000040");
    verdict.mark = 0;
    CHECK_EQUAL(ng_encode_verdict(out, sizeof out, 7, &verdict), 32);
    verdict.verdict = NG_REPEAT; /* the mark always, also 0: it is cleared */
    CHECK_EQUAL(ng_encode_verdict(out, sizeof out, 7, &verdict), 40);
    CHECK_BYTES(out + 20, 20, "0c000200 00000004 01020304 08000300 00000000");

    const uint8_t payload[] = {1, 2, 3, 4, 5};
    verdict.verdict = NG_ACCEPT;
    verdict.payload = payload;
    verdict.payload_length = sizeof payload;
    memset(out, 0xff, sizeof out);
    CHECK_EQUAL(ng_encode_verdict(out, sizeof out, 7, &verdict), 44);
    CHECK_BYTES(out, 44, "2c000000 0103 0100 00000000 00000000 00000007 0c000200 00000001 01020304 09000a00 01020304 05000000");
    CHECK_EQUAL(ng_encode_verdict(out, NG_VERDICT_BYTES_MAX + 7, 7, &verdict), 0);
    CHECK_EQUAL(ng_encode_verdict(out, NG_VERDICT_BYTES_MAX + 8, 7, &verdict), 44);
    verdict.payload_length = NG_PAYLOAD_MAX + 1;
    CHECK_EQUAL(ng_encode_verdict(out, SIZE_MAX, 7, &verdict), 0);
}

static void parses(void) {
    uint8_t data[256];
    uint32_t record[NG_RECORD_WORDS];
    size_t length = from_hex(PACKET, data, sizeof data);
    CHECK_EQUAL(length, 144);
    CHECK_EQUAL(ng_parse(data, length, record), NG_PACKET);
    const uint32_t expected[NG_RECORD_WORDS] = {0x01020304, 0x40, 10, 11, 12, 13, 104, 40, 45, 3u << 16 | 0x800, 1, 0};
    for (int i = 0; i < NG_RECORD_WORDS; i++) CHECK_EQUAL(record[i], expected[i]);

    /* Every cut: never a byte past the end, and the id as soon as its attribute is whole. */
    for (size_t cut = 0; cut < length; cut++) {
        uint8_t *exact = malloc(cut + 1);
        memcpy(exact + 1, data, cut); /* unaligned, and at the end of the allocation for ASan */
        CHECK_EQUAL(ng_parse(exact + 1, cut, record), cut >= 31 ? NG_PACKET : NG_BAD);
        CHECK_EQUAL(record[NG_RECORD_LENGTH], cut > 104 ? cut - 104 : 0);
        if (cut > 104) CHECK_EQUAL(record[NG_RECORD_FULL_LENGTH], 45);
        free(exact);
    }
}

static void parses_answers(void) {
    uint8_t data[64];
    uint32_t record[NG_RECORD_WORDS];
    size_t length = from_hex("24000000 0200 0001 05000000 00000000 feffffff 20000000 0103 0100 05000000 00000000", data, sizeof data);
    CHECK_EQUAL(length, 36);
    CHECK_EQUAL(ng_parse(data, length, record), NG_ANSWER);
    CHECK_EQUAL(record[0], ENOENT);
    CHECK_EQUAL(record[1], 0x0301);
    for (size_t cut = 0; cut < length; cut++) CHECK_EQUAL(ng_parse(data, cut, record), NG_BAD);
    data[19] = 0x7f; /* a positive error */
    CHECK_EQUAL(ng_parse(data, length, record), NG_BAD);
    memset(data + 16, 0, 4);
    CHECK_EQUAL(ng_parse(data, length, record), NG_ANSWER);
    CHECK_EQUAL(record[0], 0);
}

static void counts_acks(void) {
    uint8_t data[128];
    size_t length = from_hex("14000000 0200 0000 00000000 00000000 00000000" /* NLMSG_ERROR */
                             "15000000 0603 0000 00000000 00000000 00000000 ff000000" /* data of 21 bytes, padded */
                             "14000000 0200 0000 00000000 00000000 00000000", data, sizeof data);
    CHECK_EQUAL(ng_netlink_count_acks(data, length), 2);
    CHECK_EQUAL(ng_netlink_count_acks(data, length - 1), 1);
    CHECK_EQUAL(ng_netlink_count_acks(data, 0), 0);
    memset(data + 20, 0, 4); /* a length of 0 must not loop */
    CHECK_EQUAL(ng_netlink_count_acks(data, length), 1);
    memset(data + 20, 0xff, 4);
    CHECK_EQUAL(ng_netlink_count_acks(data, length), 1);
}

/* A million mutations: the answer is one of three, and what a record points to is inside the message. */
static void survives_mutations(void) {
    uint8_t whole[256];
    size_t length = from_hex(PACKET, whole, sizeof whole);
    uint64_t state = 88172645463325252u;
    size_t packets = 0, bad = 0;
    uint8_t *copies[8];
    for (size_t i = 0; i < 8; i++) copies[i] = malloc(length - i * 8); /* for ASan: the end is the end */
    for (int round = 0; round < 1000000; round++) {
        size_t which = next_random(&state) % 8;
        size_t size = length - which * 8;
        uint8_t *data = copies[which];
        memcpy(data, whole, size);
        for (uint32_t n = next_random(&state) % 4 + 1; n > 0; n--) {
            uint8_t *at = &data[next_random(&state) % size];
            switch (next_random(&state) % 4) {
            case 0: *at = (uint8_t)next_random(&state); break;
            case 1: *at ^= (uint8_t)(1u << next_random(&state) % 8); break;
            case 2: *at = 0xff; break;
            default: *at = 0; break;
            }
        }
        uint32_t record[NG_RECORD_WORDS];
        enum ng_parsed parsed = ng_parse(data, size, record);
        if (parsed == NG_PACKET) {
            packets++;
            CHECK((size_t)record[NG_RECORD_OFFSET] + record[NG_RECORD_LENGTH] <= size);
        } else {
            bad++;
        }
        (void)ng_netlink_count_acks(data, size);
    }
    for (size_t i = 0; i < 8; i++) free(copies[i]);
    CHECK(packets > 100000 && bad > 100000);
}

/* Any protocol: the answer of the kernel's link table about the loopback interface, and its acknowledgement. */
static void talks_to_route(void) {
    struct ng_netlink nl;
    CHECK_EQUAL(ng_netlink_open(&nl, NETLINK_ROUTE, 0), 0);
    CHECK(nl.port != 0);
    uint8_t request[64], reply[16384];
    /* nlmsghdr 32, RTM_GETLINK, NLM_F_REQUEST | NLM_F_ACK, sequence 9; ifinfomsg: index 1 */
    size_t length = from_hex("20000000 1200 0500 09000000 00000000 00000000 01000000 00000000 00000000", request, sizeof request);
    ssize_t bytes = ng_netlink_transact(&nl, request, length, reply, sizeof reply, 1);
    CHECK(bytes > 36);
    struct nlmsghdr first;
    memcpy(&first, reply, sizeof first);
    CHECK_EQUAL(first.nlmsg_type, RTM_NEWLINK);
    CHECK_EQUAL(first.nlmsg_seq, 9);
    CHECK_EQUAL(ng_netlink_count_acks(reply, (size_t)bytes), 1);
    ng_netlink_close(&nl);
    CHECK_EQUAL(ng_netlink_open(&nl, MAX_LINKS, 0), -EPROTONOSUPPORT);
}

int main(void) {
    talks_to_route();
    encodes();
    encodes_verdicts();
    parses();
    parses_answers();
    counts_acks();
    survives_mutations();
    return 0;
}
