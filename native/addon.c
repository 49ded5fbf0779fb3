/*
 * The Node-API face of the files beside this one (declared in src/base/addon.ts): arguments in, errors out, and the
 * event loop. Context aware: everything belongs to the environment (thread) that created it, and ends with it.
 */
#include <errno.h>
#include <linux/netlink.h>
#include <node_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <uv.h>

#include "bpf.h"
#include "netlink.h"
#include "queue.h"
#include "raw.h"
#include "watchdog.h"

#define HOLD UINT32_MAX
#define ROUNDS_PER_WAKEUP 1 /* batches before the event loop gets its turn again */
#define BACKOFF_MIN_MS 10
#define BACKOFF_MAX_MS 5000
#define QUEUE_LENGTH_MAX (1u << 20)
#define DEADLINE_MAX_MS 3600000u

/* ---- errors and arguments: false or NULL means that a JavaScript exception is pending ---- */

/* error: positive errno. */
static napi_value throw_errno(napi_env env, int error, const char *syscall) {
    char name[32], text[640];
    uv_err_name_r(-error, name, sizeof name);
    snprintf(text, sizeof text, "%s: %s, %s", name, strerror(error), syscall);
    napi_value code, message, object, value;
    if (napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &code) != napi_ok ||
        napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message) != napi_ok ||
        napi_create_error(env, code, message, &object) != napi_ok)
        return NULL;
    if (napi_create_int32(env, -error, &value) == napi_ok) napi_set_named_property(env, object, "errno", value);
    if (napi_create_string_utf8(env, syscall, NAPI_AUTO_LENGTH, &value) == napi_ok)
        napi_set_named_property(env, object, "syscall", value);
    napi_throw(env, object);
    return NULL;
}

static bool check(napi_env env, napi_status status) {
    if (status == napi_ok) return true;
    bool pending = false;
    napi_is_exception_pending(env, &pending);
    if (!pending) napi_throw_error(env, "ERR_NAPI", "a Node-API call failed");
    return false;
}

static bool to_u32(napi_env env, napi_value value, const char *name, uint32_t min, uint32_t max, uint32_t *out) {
    double number;
    if (napi_get_value_double(env, value, &number) != napi_ok || !(number >= min && number <= max) ||
        number != (double)(uint32_t)number) {
        char text[96];
        snprintf(text, sizeof text, "%s must be an integer from %u to %u", name, min, max);
        napi_throw_range_error(env, "ERR_OUT_OF_RANGE", text);
        return false;
    }
    *out = (uint32_t)number;
    return true;
}

/* A property of an options object that may be missing: `out` then keeps its value. */
static bool to_option(napi_env env, napi_value options, const char *name, uint32_t max, uint32_t *out) {
    napi_value value;
    napi_valuetype type;
    if (!check(env, napi_get_named_property(env, options, name, &value)) || !check(env, napi_typeof(env, value, &type)))
        return false;
    return type == napi_undefined || to_u32(env, value, name, 0, max, out);
}

struct bytes {
    uint8_t *data;
    size_t length;
};

static bool to_bytes(napi_env env, napi_value value, const char *name, struct bytes *out) {
    napi_typedarray_type type;
    void *data;
    if (napi_get_typedarray_info(env, value, &type, &out->length, &data, NULL, NULL) != napi_ok || type != napi_uint8_array) {
        char text[64];
        snprintf(text, sizeof text, "%s must be a Uint8Array", name);
        napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", text);
        return false;
    }
    out->data = data;
    return true;
}

/* A Uint8Array and how many of its bytes count. */
static bool to_part(napi_env env, napi_value array, napi_value length, const char *name, struct bytes *out) {
    uint32_t part;
    if (!to_bytes(env, array, name, out)) return false;
    if (!to_u32(env, length, "length", 0, out->length > UINT32_MAX ? UINT32_MAX : (uint32_t)out->length, &part)) return false;
    out->length = part;
    return true;
}

/* Fills `arguments` (missing ones are undefined) and gives the C object behind `this`. */
static void *receiver(napi_env env, napi_callback_info info, size_t count, napi_value *arguments) {
    napi_value self;
    void *object = NULL;
    if (!check(env, napi_get_cb_info(env, info, &count, arguments, &self, NULL))) return NULL;
    if (!check(env, napi_unwrap(env, self, &object))) return NULL;
    return object;
}

static bool constructing(napi_env env, napi_callback_info info) {
    napi_value target = NULL;
    if (napi_get_new_target(env, info, &target) == napi_ok && target != NULL) return true;
    napi_throw_type_error(env, "ERR_CONSTRUCT_CALL_REQUIRED", "use new");
    return false;
}

static napi_value number(napi_env env, double value) {
    napi_value result = NULL;
    napi_create_double(env, value, &result);
    return result;
}

/* ---- NetlinkSocket ---- */

static void netlink_finalize(napi_env env, void *data, void *hint) {
    (void)env, (void)hint;
    ng_netlink_close(data);
    free(data);
}

static napi_value netlink_new(napi_env env, napi_callback_info info) {
    size_t count = 1;
    napi_value options, self;
    if (!constructing(env, info) || !check(env, napi_get_cb_info(env, info, &count, &options, &self, NULL))) return NULL;
    uint32_t protocol = NETLINK_NETFILTER, receive_buffer = 0;
    napi_valuetype type;
    if (!check(env, napi_typeof(env, options, &type))) return NULL;
    if (type == napi_object && (!to_option(env, options, "protocol", MAX_LINKS - 1, &protocol) ||
                                !to_option(env, options, "receiveBuffer", INT32_MAX, &receive_buffer)))
        return NULL;
    struct ng_netlink *nl = malloc(sizeof *nl);
    if (nl == NULL) return throw_errno(env, ENOMEM, "malloc");
    int status = ng_netlink_open(nl, (int)protocol, receive_buffer);
    if (status < 0) {
        free(nl);
        return throw_errno(env, -status, "socket");
    }
    if (!check(env, napi_wrap(env, self, nl, netlink_finalize, NULL, NULL))) {
        netlink_finalize(env, nl, NULL);
        return NULL;
    }
    return self;
}

static napi_value netlink_transact(napi_env env, napi_callback_info info) {
    napi_value arguments[4];
    struct bytes request, reply;
    uint32_t acks;
    struct ng_netlink *nl = receiver(env, info, 4, arguments);
    if (nl == NULL || !to_part(env, arguments[0], arguments[1], "request", &request) ||
        !to_bytes(env, arguments[2], "reply", &reply) || !to_u32(env, arguments[3], "acks", 0, UINT32_MAX, &acks))
        return NULL;
    ssize_t bytes = ng_netlink_transact(nl, request.data, request.length, reply.data, reply.length, acks);
    if (bytes < 0) return throw_errno(env, (int)-bytes, "netlink");
    return number(env, (double)bytes);
}

static napi_value netlink_send(napi_env env, napi_callback_info info) {
    napi_value arguments[2];
    struct bytes request;
    struct ng_netlink *nl = receiver(env, info, 2, arguments);
    if (nl == NULL || !to_part(env, arguments[0], arguments[1], "request", &request)) return NULL;
    ng_netlink_drain(nl);
    int status = ng_netlink_send(nl, request.data, request.length);
    if (status < 0) return throw_errno(env, -status, "sendmsg");
    return NULL;
}

static napi_value netlink_receive(napi_env env, napi_callback_info info) {
    napi_value arguments[1];
    struct bytes reply;
    struct ng_netlink *nl = receiver(env, info, 1, arguments);
    if (nl == NULL || !to_bytes(env, arguments[0], "reply", &reply)) return NULL;
    ssize_t bytes = ng_netlink_receive(nl, reply.data, reply.length);
    if (bytes < 0) return throw_errno(env, (int)-bytes, "recvmsg");
    return number(env, (double)bytes);
}

static napi_value netlink_close(napi_env env, napi_callback_info info) {
    struct ng_netlink *nl = receiver(env, info, 0, NULL);
    if (nl != NULL) ng_netlink_close(nl);
    return NULL;
}

/* ---- RawSender ---- */

static void raw_finalize(napi_env env, void *data, void *hint) {
    (void)env, (void)hint;
    ng_raw_close(data);
    free(data);
}

static napi_value raw_new(napi_env env, napi_callback_info info) {
    size_t count = 0;
    napi_value self;
    if (!constructing(env, info) || !check(env, napi_get_cb_info(env, info, &count, NULL, &self, NULL))) return NULL;
    struct ng_raw *raw = malloc(sizeof *raw);
    if (raw == NULL) return throw_errno(env, ENOMEM, "malloc");
    ng_raw_init(raw);
    if (!check(env, napi_wrap(env, self, raw, raw_finalize, NULL, NULL))) {
        free(raw);
        return NULL;
    }
    return self;
}

static napi_value raw_send(napi_env env, napi_callback_info info) {
    napi_value arguments[3];
    struct bytes packet;
    uint32_t mark;
    struct ng_raw *raw = receiver(env, info, 3, arguments);
    if (raw == NULL || !to_part(env, arguments[0], arguments[1], "packet", &packet) ||
        !to_u32(env, arguments[2], "mark", 0, UINT32_MAX, &mark))
        return NULL;
    const char *call;
    int status = ng_raw_send(raw, packet.data, packet.length, mark, &call);
    if (status < 0) return throw_errno(env, -status, call);
    return NULL;
}

static napi_value raw_frame(napi_env env, napi_callback_info info) {
    napi_value arguments[3];
    struct bytes frame;
    uint32_t interface;
    struct ng_raw *raw = receiver(env, info, 3, arguments);
    if (raw == NULL || !to_u32(env, arguments[0], "interface", 1, INT32_MAX, &interface) ||
        !to_part(env, arguments[1], arguments[2], "frame", &frame))
        return NULL;
    const char *call;
    int status = ng_raw_frame(raw, interface, frame.data, frame.length, &call);
    if (status < 0) return throw_errno(env, -status, call);
    return NULL;
}

static napi_value raw_close(napi_env env, napi_callback_info info) {
    struct ng_raw *raw = receiver(env, info, 0, NULL);
    if (raw != NULL) ng_raw_close(raw);
    return NULL;
}

/* ---- BpfMap and BpfProgram ---- */

#define PATH_BYTES 256
#define BPF_NAME_BYTES 64
#define VERIFIER_LOG_BYTES 65536
#define BPF_ELEMENT_BYTES_MAX 1024 /* of a key, and of a value */

static bool to_text(napi_env env, napi_value value, const char *name, char *out, size_t size) {
    size_t length;
    if (napi_get_value_string_utf8(env, value, NULL, 0, &length) == napi_ok && length < size &&
        napi_get_value_string_utf8(env, value, out, size, &length) == napi_ok && strlen(out) == length)
        return true;
    char text[96];
    snprintf(text, sizeof text, "%s must be a string of less than %zu bytes", name, size);
    napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", text);
    return false;
}

static bool has_text(napi_env env, napi_value options, const char *name, char *out, size_t size, bool *there) {
    napi_value value;
    napi_valuetype type;
    if (!check(env, napi_get_named_property(env, options, name, &value)) || !check(env, napi_typeof(env, value, &type)))
        return false;
    *there = type != napi_undefined;
    return !*there || to_text(env, value, name, out, size);
}

static void close_once(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static void bpf_map_finalize(napi_env env, void *data, void *hint) {
    (void)env, (void)hint;
    struct ng_bpf_map *map = data;
    close_once(&map->fd);
    free(map);
}

/* {path} opens a pinned one, {name, keyBytes, valueBytes, entries, preallocated} makes one. */
static napi_value bpf_map_new(napi_env env, napi_callback_info info) {
    size_t count = 1;
    napi_value options, self;
    if (!constructing(env, info) || !check(env, napi_get_cb_info(env, info, &count, &options, &self, NULL))) return NULL;
    char path[PATH_BYTES], name[BPF_NAME_BYTES] = "";
    uint32_t key_size = 0, value_size = 0, entries = 0, preallocated = 0;
    bool pinned, named;
    if (!has_text(env, options, "path", path, sizeof path, &pinned) || !has_text(env, options, "name", name, sizeof name, &named) ||
        !to_option(env, options, "keyBytes", BPF_ELEMENT_BYTES_MAX, &key_size) ||
        !to_option(env, options, "valueBytes", BPF_ELEMENT_BYTES_MAX, &value_size) ||
        !to_option(env, options, "entries", INT32_MAX, &entries) || !to_option(env, options, "preallocated", 1, &preallocated))
        return NULL;
    struct ng_bpf_map *map = malloc(sizeof *map);
    if (map == NULL) return throw_errno(env, ENOMEM, "malloc");
    int status = pinned ? ng_bpf_map_open(map, path) : ng_bpf_map_create(map, key_size, value_size, entries, (int)preallocated, name);
    if (status < 0) {
        free(map);
        return throw_errno(env, -status, pinned ? "BPF_OBJ_GET" : "BPF_MAP_CREATE");
    }
    if (!check(env, napi_wrap(env, self, map, bpf_map_finalize, NULL, NULL))) {
        bpf_map_finalize(env, map, NULL);
        return NULL;
    }
    return self;
}

static bool to_element(napi_env env, napi_value value, const char *name, size_t length, struct bytes *out) {
    if (!to_bytes(env, value, name, out)) return false;
    if (out->length == length) return true;
    char text[64];
    snprintf(text, sizeof text, "%s must have %zu bytes", name, length);
    napi_throw_range_error(env, "ERR_OUT_OF_RANGE", text);
    return false;
}

/* Answers whether there was such an element. */
static napi_value found(napi_env env, int status, const char *syscall) {
    napi_value result = NULL;
    if (status < 0 && status != -ENOENT) return throw_errno(env, -status, syscall);
    napi_get_boolean(env, status == 0, &result);
    return result;
}

static napi_value bpf_map_get(napi_env env, napi_callback_info info) {
    napi_value arguments[2];
    struct bytes key, value;
    struct ng_bpf_map *map = receiver(env, info, 2, arguments);
    if (map == NULL || !to_element(env, arguments[0], "key", map->key_size, &key) ||
        !to_element(env, arguments[1], "value", map->value_size, &value))
        return NULL;
    return found(env, ng_bpf_map_get(map, key.data, value.data), "BPF_MAP_LOOKUP_ELEM");
}

static napi_value bpf_map_put(napi_env env, napi_callback_info info) {
    napi_value arguments[2];
    struct bytes key, value;
    struct ng_bpf_map *map = receiver(env, info, 2, arguments);
    if (map == NULL || !to_element(env, arguments[0], "key", map->key_size, &key) ||
        !to_element(env, arguments[1], "value", map->value_size, &value))
        return NULL;
    int status = ng_bpf_map_put(map, key.data, value.data);
    if (status < 0) return throw_errno(env, -status, "BPF_MAP_UPDATE_ELEM");
    return NULL;
}

static napi_value bpf_map_delete(napi_env env, napi_callback_info info) {
    napi_value arguments[1];
    struct bytes key;
    struct ng_bpf_map *map = receiver(env, info, 1, arguments);
    if (map == NULL || !to_element(env, arguments[0], "key", map->key_size, &key)) return NULL;
    return found(env, ng_bpf_map_delete(map, key.data), "BPF_MAP_DELETE_ELEM");
}

static napi_value bpf_map_next(napi_env env, napi_callback_info info) {
    napi_value arguments[2];
    napi_valuetype type;
    struct bytes key = {0}, next;
    struct ng_bpf_map *map = receiver(env, info, 2, arguments);
    if (map == NULL || !to_element(env, arguments[0], "next", map->key_size, &next) ||
        !check(env, napi_typeof(env, arguments[1], &type)) ||
        (type != napi_undefined && !to_element(env, arguments[1], "key", map->key_size, &key)))
        return NULL;
    return found(env, ng_bpf_map_next(map, key.data, next.data), "BPF_MAP_GET_NEXT_KEY");
}

static napi_value pin(napi_env env, napi_value to, int fd) {
    char path[PATH_BYTES];
    if (!to_text(env, to, "path", path, sizeof path)) return NULL;
    int status = ng_bpf_pin(fd, path);
    if (status < 0) return throw_errno(env, -status, "BPF_OBJ_PIN");
    return NULL;
}

static napi_value bpf_map_pin(napi_env env, napi_callback_info info) {
    napi_value arguments[1];
    struct ng_bpf_map *map = receiver(env, info, 1, arguments);
    return map == NULL ? NULL : pin(env, arguments[0], map->fd);
}

static napi_value bpf_map_fd(napi_env env, napi_callback_info info) {
    struct ng_bpf_map *map = receiver(env, info, 0, NULL);
    return map == NULL ? NULL : number(env, map->fd);
}

static napi_value bpf_map_close(napi_env env, napi_callback_info info) {
    struct ng_bpf_map *map = receiver(env, info, 0, NULL);
    if (map != NULL) close_once(&map->fd);
    return NULL;
}

struct bpf_program {
    int fd; /* -1 when closed */
};

static void bpf_program_finalize(napi_env env, void *data, void *hint) {
    (void)env, (void)hint;
    struct bpf_program *program = data;
    close_once(&program->fd);
    free(program);
}

/* The verifier's last words are the ones that say why. */
static napi_value throw_refusal(napi_env env, int error, const char *log) {
    char text[512];
    size_t length = strlen(log), shown = length < sizeof text - 64 ? length : sizeof text - 64;
    snprintf(text, sizeof text, "%s%s", length == 0 ? "BPF_PROG_LOAD" : "BPF_PROG_LOAD: ", log + length - shown);
    return throw_errno(env, error, text);
}

/* {path} opens a pinned one, {name, license, instructions} loads one. */
static napi_value bpf_program_new(napi_env env, napi_callback_info info) {
    size_t count = 1;
    napi_value options, self, value;
    if (!constructing(env, info) || !check(env, napi_get_cb_info(env, info, &count, &options, &self, NULL))) return NULL;
    char path[PATH_BYTES], name[BPF_NAME_BYTES] = "", license[BPF_NAME_BYTES] = "";
    bool pinned, there;
    if (!has_text(env, options, "path", path, sizeof path, &pinned) || !has_text(env, options, "name", name, sizeof name, &there) ||
        !has_text(env, options, "license", license, sizeof license, &there))
        return NULL;
    struct bytes instructions = {0};
    if (!pinned && (!check(env, napi_get_named_property(env, options, "instructions", &value)) ||
                    !to_bytes(env, value, "instructions", &instructions)))
        return NULL;
    struct bpf_program *program = malloc(sizeof *program);
    char *log = malloc(VERIFIER_LOG_BYTES);
    if (program == NULL || log == NULL) {
        free(program);
        free(log);
        return throw_errno(env, ENOMEM, "malloc");
    }
    log[0] = 0;
    program->fd = pinned ? ng_bpf_program_open(path)
                         : ng_bpf_program_load(instructions.data, (uint32_t)(instructions.length / 8), license, name, log,
                                               VERIFIER_LOG_BYTES);
    if (program->fd < 0) {
        int error = -program->fd;
        if (pinned) throw_errno(env, error, "BPF_OBJ_GET");
        else throw_refusal(env, error, log);
        free(program);
        program = NULL;
    }
    free(log);
    if (program == NULL) return NULL;
    if (!check(env, napi_wrap(env, self, program, bpf_program_finalize, NULL, NULL))) {
        bpf_program_finalize(env, program, NULL);
        return NULL;
    }
    return self;
}

static napi_value bpf_program_run(napi_env env, napi_callback_info info) {
    napi_value arguments[1];
    struct bytes packet;
    uint32_t answer;
    struct bpf_program *program = receiver(env, info, 1, arguments);
    if (program == NULL || !to_bytes(env, arguments[0], "packet", &packet)) return NULL;
    int status = ng_bpf_program_run(program->fd, packet.data, packet.length, &answer);
    if (status < 0) return throw_errno(env, -status, "BPF_PROG_TEST_RUN");
    return number(env, answer);
}

static napi_value bpf_program_pin(napi_env env, napi_callback_info info) {
    napi_value arguments[1];
    struct bpf_program *program = receiver(env, info, 1, arguments);
    return program == NULL ? NULL : pin(env, arguments[0], program->fd);
}

static napi_value bpf_program_close(napi_env env, napi_callback_info info) {
    struct bpf_program *program = receiver(env, info, 0, NULL);
    if (program != NULL) close_once(&program->fd);
    return NULL;
}

/* ---- PacketQueue ---- */

struct replacement {
    uint8_t *bytes;
    uint32_t length; /* 0: the packet stays as it is */
    uint32_t capacity;
};

/*
 * Freed when the JavaScript object is gone *and* libuv has let go of every handle, in whatever order (`refs`). Only
 * `queue` and `watchdog` are shared with the watchdog's thread.
 */
struct packet_queue {
    struct ng_queue queue;
    struct ng_watchdog watchdog;
    struct ng_batch batch;
    napi_env env;
    napi_async_cleanup_hook_handle hook;
    napi_ref self; /* strong from start() to close() */
    napi_ref memory; /* the one ArrayBuffer behind packets, records and verdicts */
    napi_ref on_batch;
    napi_ref on_lost;
    uv_loop_t *loop;
    uv_poll_t *poll;   /* while the socket works; one per socket */
    uv_timer_t timer;  /* runs while a socket has to be opened again; data is NULL until it is initialised */
    uv_async_t wakeup; /* from the watchdog; data likewise */
    uint32_t *verdicts;
    struct replacement replacements[NG_BATCH_MAX];
    uint32_t in_hand; /* packets of the batch that JavaScript is looking at, and that are not released */
    uint32_t refs;
    uint32_t handles; /* libuv's */
    uint32_t backoff_ms;
    bool closed;
    bool calling;      /* the callback is running */
    bool close_wanted; /* close() was called in it */
    struct ng_queue_stats reported;
};

static void release(struct packet_queue *pq) {
    if (--pq->refs > 0) return;
    for (uint32_t i = 0; i < NG_BATCH_MAX; i++) free(pq->replacements[i].bytes);
    ng_queue_free(&pq->queue);
    free(pq);
}

static void handle_closed(struct packet_queue *pq) {
    if (--pq->handles == 0 && pq->closed && pq->hook != NULL) {
        napi_remove_async_cleanup_hook(pq->hook);
        pq->hook = NULL;
    }
    release(pq);
}

static void embedded_closed(uv_handle_t *handle) {
    handle_closed(handle->data);
}

static void poll_closed(uv_handle_t *handle) {
    struct packet_queue *pq = handle->data;
    free(handle);
    handle_closed(pq);
}

static void hold_handle(struct packet_queue *pq) {
    pq->refs++;
    pq->handles++;
}

static void stop_polling(struct packet_queue *pq) {
    if (pq->poll == NULL) return;
    uv_poll_stop(pq->poll);
    uv_close((uv_handle_t *)pq->poll, poll_closed);
    pq->poll = NULL;
}

static void drop_reference(napi_env env, napi_ref *reference) {
    if (*reference != NULL) napi_delete_reference(env, *reference);
    *reference = NULL;
}

/* Everything but memory, once; safe at any time after queue_new. */
static void shut(struct packet_queue *pq) {
    if (pq->closed) return;
    pq->closed = true;
    ng_watchdog_stop(&pq->watchdog);
    stop_polling(pq);
    ng_queue_close(&pq->queue);
    if (pq->timer.data != NULL) uv_close((uv_handle_t *)&pq->timer, embedded_closed);
    if (pq->wakeup.data != NULL) uv_close((uv_handle_t *)&pq->wakeup, embedded_closed);
    drop_reference(pq->env, &pq->on_batch);
    drop_reference(pq->env, &pq->on_lost);
    drop_reference(pq->env, &pq->memory);
    drop_reference(pq->env, &pq->self);
}

static void environment_ends(napi_async_cleanup_hook_handle hook, void *data) {
    struct packet_queue *pq = data;
    shut(pq);
    if (pq->handles == 0) {
        pq->hook = NULL;
        napi_remove_async_cleanup_hook(hook);
    }
}

static void queue_finalize(napi_env env, void *data, void *hint) {
    (void)env, (void)hint;
    shut(data);
    release(data);
}

/* Calls a function of ours with `this` = the queue. False when it threw; the exception's text is put in `text`. */
static bool call(struct packet_queue *pq, napi_ref function, size_t count, napi_value *arguments, char *text, size_t size) {
    napi_value self, callee, result, error;
    if (napi_get_reference_value(pq->env, pq->self, &self) != napi_ok ||
        napi_get_reference_value(pq->env, function, &callee) != napi_ok)
        return false;
    /* Not napi_call_function: ticks and microtasks must run, and nothing of ours is on the stack above. */
    if (napi_make_callback(pq->env, NULL, self, callee, count, arguments, &result) == napi_ok) return true;
    snprintf(text, size, "the callback failed");
    bool pending = false;
    if (napi_is_exception_pending(pq->env, &pending) != napi_ok || !pending) return false;
    if (napi_get_and_clear_last_exception(pq->env, &error) != napi_ok) return false;
    napi_value string;
    if (napi_coerce_to_string(pq->env, error, &string) == napi_ok) napi_get_value_string_utf8(pq->env, string, text, size, NULL);
    else napi_get_and_clear_last_exception(pq->env, &error);
    return false;
}

static void report(struct packet_queue *pq, const char *what, const char *detail) {
    if (pq->closed || pq->on_lost == NULL) return;
    napi_handle_scope scope;
    if (napi_open_handle_scope(pq->env, &scope) != napi_ok) return;
    napi_value arguments[2];
    char ignored[64];
    if (napi_create_string_utf8(pq->env, what, NAPI_AUTO_LENGTH, &arguments[0]) == napi_ok &&
        napi_create_string_utf8(pq->env, detail, NAPI_AUTO_LENGTH, &arguments[1]) == napi_ok)
        call(pq, pq->on_lost, 2, arguments, ignored, sizeof ignored);
    napi_close_handle_scope(pq->env, scope);
}

static void report_count(struct packet_queue *pq, const char *what, uint64_t now, uint64_t *before, const char *text) {
    if (now == *before) return;
    char detail[96];
    snprintf(detail, sizeof detail, "%llu %s", (unsigned long long)(now - *before), text);
    *before = now;
    report(pq, what, detail);
}

static void on_timer(uv_timer_t *timer);

/* Tells what has happened since the last time, and starts opening the socket again when it has failed. */
static void look_after(struct packet_queue *pq) {
    uint32_t held;
    int failed;
    struct ng_queue_stats now = ng_queue_look(&pq->queue, &held, &failed);
    report_count(pq, "gap", now.gaps, &pq->reported.gaps, "packets lost before they could be read");
    report_count(pq, "enobufs", now.enobufs, &pq->reported.enobufs, "receive buffer overruns");
    report_count(pq, "watchdog", now.late, &pq->reported.late, "packets settled by the watchdog");
    if (failed == 0 || pq->closed || pq->poll == NULL) return;
    stop_polling(pq);
    pq->backoff_ms = BACKOFF_MIN_MS;
    uv_timer_start(&pq->timer, on_timer, pq->backoff_ms, 0);
    char detail[160];
    snprintf(detail, sizeof detail, "the socket failed (%s), what it held is dropped; opening another", strerror(failed));
    report(pq, "rebind", detail);
}

static bool memory_is_ours(struct packet_queue *pq) {
    napi_value memory;
    bool detached = true;
    return napi_get_reference_value(pq->env, pq->memory, &memory) == napi_ok &&
           napi_is_detached_arraybuffer(pq->env, memory, &detached) == napi_ok && !detached;
}

static bool can_settle_with(uint32_t verdict) {
    return verdict == NG_DROP || verdict == NG_ACCEPT || verdict == NG_REPEAT;
}

/* Settles what JavaScript does not hold of the packets in hand, by what it has written. Returns what is wrong with that. */
static const char *settle_in_hand(struct packet_queue *pq) {
    const char *fault = NULL;
    struct ng_verdict verdicts[NG_BATCH_MAX];
    uint32_t settled = 0;
    for (uint32_t i = 0; i < pq->in_hand; i++) {
        uint32_t verdict = pq->verdicts[2 * i];
        if (verdict == HOLD) continue;
        const struct replacement *replacement = &pq->replacements[i];
        bool known = can_settle_with(verdict);
        if (!known) fault = "a verdict is neither drop, accept, repeat nor HOLD";
        verdicts[settled++] = (struct ng_verdict){
            .id = pq->batch.records[(size_t)i * NG_RECORD_WORDS + NG_RECORD_ID],
            .verdict = known ? verdict : pq->queue.options.deadline_verdict,
            .mark = known ? pq->verdicts[2 * i + 1] : 0,
            .payload = replacement->length > 0 ? replacement->bytes : NULL,
            .payload_length = replacement->length,
        };
    }
    pq->in_hand = 0;
    if (settled > 0) ng_queue_settle(&pq->queue, verdicts, settled);
    return fault;
}

/* Gives `count` packets to JavaScript and settles what it neither holds nor has released. */
static void deliver(struct packet_queue *pq, uint32_t count) {
    const uint32_t fallback = pq->queue.options.deadline_verdict;
    napi_handle_scope scope;
    if (napi_open_handle_scope(pq->env, &scope) != napi_ok) return; /* left to the watchdog */
    const char *fault = NULL;
    char text[256];
    bool ours = memory_is_ours(pq);
    if (ours) {
        for (uint32_t i = 0; i < count; i++) {
            pq->verdicts[2 * i] = fallback;
            pq->verdicts[2 * i + 1] = 0;
            pq->replacements[i].length = 0;
        }
        napi_value argument;
        pq->in_hand = count;
        pq->calling = true;
        if (napi_create_uint32(pq->env, count, &argument) != napi_ok ||
            !call(pq, pq->on_batch, 1, &argument, text, sizeof text))
            fault = text;
        pq->calling = false;
        ours = !pq->closed && memory_is_ours(pq);
    }
    if (ours) {
        const char *wrong = settle_in_hand(pq);
        if (wrong != NULL) fault = wrong;
    } else if (!pq->closed) {
        /* There is nowhere to receive to any more, and the records are out of reach: the queue is over. */
        report(pq, "fault", "the packet memory was transferred; the queue is closed");
        pq->in_hand = 0;
        pq->close_wanted = true;
    }
    if (fault != NULL) report(pq, "fault", fault);
    napi_close_handle_scope(pq->env, scope);
}

static void on_readable(uv_poll_t *poll, int status, int events) {
    (void)status, (void)events; /* an error is seen by recvmmsg */
    struct packet_queue *pq = poll->data;
    pq->refs++;
    for (int round = 0; round < ROUNDS_PER_WAKEUP && !pq->closed && !pq->close_wanted; round++) {
        uint32_t datagrams;
        uint32_t count = ng_queue_receive(&pq->queue, &pq->batch, ng_now_ms(), &datagrams);
        if (count > 0) deliver(pq, count);
        if (datagrams < pq->batch.slots) break;
    }
    if (!pq->closed) look_after(pq);
    if (pq->close_wanted) shut(pq);
    release(pq);
}

static void on_wakeup(uv_async_t *wakeup) {
    struct packet_queue *pq = wakeup->data;
    pq->refs++;
    if (!pq->closed) look_after(pq);
    release(pq);
}

/* On the watchdog's thread, which ends before the handle is closed. */
static void wake(void *data) {
    struct packet_queue *pq = data;
    uv_async_send(&pq->wakeup);
}

/* 0 or a negative errno. */
static int start_polling(struct packet_queue *pq) {
    uv_poll_t *poll = malloc(sizeof *poll);
    if (poll == NULL) return -ENOMEM;
    int status = uv_poll_init(pq->loop, poll, pq->queue.socket.fd);
    if (status < 0) {
        free(poll);
        return status;
    }
    poll->data = pq;
    pq->poll = poll;
    hold_handle(pq);
    status = uv_poll_start(poll, UV_READABLE, on_readable);
    if (status < 0) stop_polling(pq);
    return status;
}

static void on_timer(uv_timer_t *timer) {
    struct packet_queue *pq = timer->data;
    int status = ng_queue_open(&pq->queue);
    if (status == 0) status = start_polling(pq);
    if (status < 0) {
        pq->backoff_ms = pq->backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : pq->backoff_ms * 2;
        uv_timer_start(&pq->timer, on_timer, pq->backoff_ms, 0);
        return;
    }
    pthread_mutex_lock(&pq->queue.lock);
    pq->queue.stats.rebinds++;
    pthread_mutex_unlock(&pq->queue.lock);
    report(pq, "rebind", "bound again");
}

static bool option_u32(napi_env env, napi_value options, const char *name, uint32_t min, uint32_t max, uint32_t *out) {
    napi_value value;
    return check(env, napi_get_named_property(env, options, name, &value)) && to_u32(env, value, name, min, max, out);
}

static bool option_bool(napi_env env, napi_value options, const char *name, bool *out) {
    napi_value value;
    if (!check(env, napi_get_named_property(env, options, name, &value))) return false;
    if (napi_get_value_bool(env, value, out) == napi_ok) return true;
    char text[64];
    snprintf(text, sizeof text, "%s must be a boolean", name);
    napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", text);
    return false;
}

static bool read_options(napi_env env, napi_value options, struct ng_queue_options *out, uint32_t *batch) {
    uint32_t number;
    napi_valuetype type;
    if (!check(env, napi_typeof(env, options, &type))) return false;
    if (type != napi_object) {
        napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", "options must be an object");
        return false;
    }
    if (!option_u32(env, options, "queue", 0, UINT16_MAX, &number) ||
        !option_u32(env, options, "copyRange", 0, NG_COPY_RANGE_MAX, &out->copy_range) ||
        !option_u32(env, options, "maxLength", 1, QUEUE_LENGTH_MAX, &out->max_length) ||
        !option_u32(env, options, "receiveBuffer", 0, INT32_MAX, &out->receive_buffer) ||
        !option_u32(env, options, "batch", 1, NG_BATCH_MAX, batch) || !option_bool(env, options, "gso", &out->gso) ||
        !option_bool(env, options, "failOpen", &out->fail_open) ||
        !option_u32(env, options, "deadlineMs", 1, DEADLINE_MAX_MS, &out->deadline_ms) ||
        !option_u32(env, options, "deadlineVerdict", NG_DROP, NG_ACCEPT, &out->deadline_verdict))
        return false;
    out->number = (uint16_t)number;
    return true;
}

/* One ArrayBuffer, three views on it, as properties of `self`. */
static bool make_memory(napi_env env, napi_value self, struct packet_queue *pq, uint32_t slots) {
    uint32_t slot = ng_queue_slot_bytes(pq->queue.options.copy_range);
    size_t packets = (size_t)slot * slots;
    size_t records = (size_t)NG_RECORD_WORDS * slots;
    size_t verdicts = (size_t)2 * slots;
    size_t total = packets + (records + verdicts) * sizeof(uint32_t);
    void *data;
    napi_value memory, view[3];
    if (!check(env, napi_create_arraybuffer(env, total, &data, &memory)) ||
        !check(env, napi_create_reference(env, memory, 1, &pq->memory)) ||
        !check(env, napi_create_typedarray(env, napi_uint8_array, packets, memory, 0, &view[0])) ||
        !check(env, napi_create_typedarray(env, napi_uint32_array, records, memory, packets, &view[1])) ||
        !check(env, napi_create_typedarray(env, napi_uint32_array, verdicts, memory, packets + records * sizeof(uint32_t), &view[2])))
        return false;
    /* Slots are multiples of 64 bytes, so both word arrays are aligned. */
    uint8_t *bytes = data;
    uint32_t *words = (uint32_t *)(void *)(bytes + packets);
    ng_batch_init(&pq->batch, bytes, words, slot, slots);
    pq->verdicts = words + records;
    const napi_property_descriptor properties[] = {
        {.utf8name = "packets", .value = view[0], .attributes = napi_enumerable},
        {.utf8name = "records", .value = view[1], .attributes = napi_enumerable},
        {.utf8name = "verdicts", .value = view[2], .attributes = napi_enumerable},
    };
    return check(env, napi_define_properties(env, self, 3, properties));
}

static napi_value queue_new(napi_env env, napi_callback_info info) {
    size_t count = 1;
    napi_value argument, self;
    struct ng_queue_options options = {0};
    uint32_t slots;
    if (!constructing(env, info) || !check(env, napi_get_cb_info(env, info, &count, &argument, &self, NULL)) ||
        !read_options(env, argument, &options, &slots))
        return NULL;

    struct packet_queue *pq = calloc(1, sizeof *pq);
    if (pq == NULL) return throw_errno(env, ENOMEM, "malloc");
    pq->env = env;
    int status = ng_queue_init(&pq->queue, &options);
    if (status == 0) {
        status = ng_queue_open(&pq->queue);
        if (status < 0) ng_queue_free(&pq->queue);
    }
    if (status < 0) {
        free(pq);
        return throw_errno(env, -status, "nfqueue bind");
    }
    ng_watchdog_init(&pq->watchdog, &pq->queue, wake, pq);
    pq->refs = 1;
    if (!check(env, napi_get_uv_event_loop(env, &pq->loop)) || !make_memory(env, self, pq, slots)) {
        drop_reference(env, &pq->memory);
        release(pq);
        return NULL;
    }
    uv_timer_init(pq->loop, &pq->timer);
    pq->timer.data = pq;
    hold_handle(pq);
    status = uv_async_init(pq->loop, &pq->wakeup, on_wakeup);
    if (status == 0) {
        pq->wakeup.data = pq;
        hold_handle(pq);
        uv_unref((uv_handle_t *)&pq->wakeup);
        status = ng_watchdog_start(&pq->watchdog);
    }
    bool kept = status == 0 && check(env, napi_add_async_cleanup_hook(env, environment_ends, pq, &pq->hook)) &&
                check(env, napi_wrap(env, self, pq, queue_finalize, NULL, NULL));
    if (!kept) {
        queue_finalize(env, pq, NULL);
        return status < 0 ? throw_errno(env, -status, "nfqueue watchdog") : NULL;
    }
    return self;
}

static napi_value queue_start(napi_env env, napi_callback_info info) {
    size_t count = 2;
    napi_value arguments[2], self;
    void *data = NULL;
    if (!check(env, napi_get_cb_info(env, info, &count, arguments, &self, NULL)) || !check(env, napi_unwrap(env, self, &data)))
        return NULL;
    struct packet_queue *pq = data;
    napi_valuetype type[2];
    if (!check(env, napi_typeof(env, arguments[0], &type[0])) || !check(env, napi_typeof(env, arguments[1], &type[1]))) return NULL;
    if (type[0] != napi_function || type[1] != napi_function) {
        napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", "onBatch and onLost must be functions");
        return NULL;
    }
    if (pq->closed) return throw_errno(env, EBADF, "start");
    if (pq->self != NULL) return throw_errno(env, EALREADY, "start");
    if (!check(env, napi_create_reference(env, arguments[0], 1, &pq->on_batch)) ||
        !check(env, napi_create_reference(env, arguments[1], 1, &pq->on_lost)) ||
        !check(env, napi_create_reference(env, self, 1, &pq->self)))
        return NULL;
    int status = start_polling(pq);
    if (status < 0) return throw_errno(env, -status, "uv_poll_start");
    return NULL;
}

static napi_value queue_settle(napi_env env, napi_callback_info info) {
    napi_value arguments[4];
    struct packet_queue *pq = receiver(env, info, 4, arguments);
    struct ng_verdict verdict = {0};
    napi_valuetype type;
    if (pq == NULL || !to_u32(env, arguments[0], "id", 0, UINT32_MAX, &verdict.id) ||
        !to_u32(env, arguments[1], "verdict", 0, UINT32_MAX, &verdict.verdict) ||
        !to_u32(env, arguments[2], "mark", 0, UINT32_MAX, &verdict.mark) || !check(env, napi_typeof(env, arguments[3], &type)))
        return NULL;
    if (type != napi_undefined) {
        struct bytes packet;
        if (!to_bytes(env, arguments[3], "packet", &packet)) return NULL;
        if (packet.length > NG_PAYLOAD_MAX) return throw_errno(env, EMSGSIZE, "settle");
        verdict.payload = packet.data;
        verdict.payload_length = (uint32_t)packet.length;
    }
    if (pq->closed) return NULL;
    if (!can_settle_with(verdict.verdict)) {
        napi_throw_range_error(env, "ERR_OUT_OF_RANGE", "verdict must be drop, accept or repeat");
        return NULL;
    }
    ng_queue_settle(&pq->queue, &verdict, 1);
    return NULL;
}

static napi_value queue_replace(napi_env env, napi_callback_info info) {
    napi_value arguments[2];
    struct packet_queue *pq = receiver(env, info, 2, arguments);
    struct bytes packet;
    uint32_t index;
    if (pq == NULL || !to_u32(env, arguments[0], "index", 0, NG_BATCH_MAX - 1, &index) ||
        !to_bytes(env, arguments[1], "packet", &packet))
        return NULL;
    if (index >= pq->in_hand) {
        napi_throw_range_error(env, "ERR_OUT_OF_RANGE", "index is not in the batch in hand");
        return NULL;
    }
    if (packet.length == 0 || packet.length > NG_PAYLOAD_MAX) return throw_errno(env, EMSGSIZE, "replace");
    struct replacement *replacement = &pq->replacements[index];
    if (replacement->capacity < packet.length) {
        uint8_t *bytes = realloc(replacement->bytes, packet.length);
        if (bytes == NULL) return throw_errno(env, ENOMEM, "replace");
        replacement->bytes = bytes;
        replacement->capacity = (uint32_t)packet.length;
    }
    memcpy(replacement->bytes, packet.data, packet.length);
    replacement->length = (uint32_t)packet.length;
    return NULL;
}

static napi_value queue_release(napi_env env, napi_callback_info info) {
    struct packet_queue *pq = receiver(env, info, 0, NULL);
    if (pq == NULL) return NULL;
    if (!memory_is_ours(pq)) return throw_errno(env, EBADF, "release");
    const char *fault = settle_in_hand(pq);
    if (fault != NULL) napi_throw_range_error(env, "ERR_OUT_OF_RANGE", fault);
    return NULL;
}

static napi_value queue_stats(napi_env env, napi_callback_info info) {
    struct packet_queue *pq = receiver(env, info, 0, NULL);
    if (pq == NULL) return NULL;
    uint32_t held;
    int failed;
    struct ng_queue_stats stats = ng_queue_look(&pq->queue, &held, &failed);
    const struct {
        const char *name;
        uint64_t value;
    } fields[] = {
        {"received", stats.received}, {"settled", stats.settled}, {"gaps", stats.gaps},
        {"enobufs", stats.enobufs},   {"rebinds", stats.rebinds}, {"late", stats.late},
        {"held", held},               {"unknown", stats.unknown}, {"refused", stats.refused},
    };
    napi_value object;
    if (!check(env, napi_create_object(env, &object))) return NULL;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (!check(env, napi_set_named_property(env, object, fields[i].name, number(env, (double)fields[i].value)))) return NULL;
    }
    return object;
}

static napi_value queue_close(napi_env env, napi_callback_info info) {
    struct packet_queue *pq = receiver(env, info, 0, NULL);
    if (pq == NULL) return NULL;
    /* In the callback: its verdicts come first. */
    if (pq->calling) pq->close_wanted = true;
    else shut(pq);
    return NULL;
}

/* ---- threads ---- */

/* struct sched_attr of linux/sched/types.h, first version; glibc 2.41 has one too. */
struct thread_attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

static napi_value set_slice(napi_env env, napi_callback_info info) {
    napi_value arguments[2];
    size_t count = 2;
    uint32_t thread, nanoseconds;
    struct thread_attributes attributes = {0};
    if (!check(env, napi_get_cb_info(env, info, &count, arguments, NULL, NULL)) ||
        !to_u32(env, arguments[0], "thread", 1, INT32_MAX, &thread) ||
        !to_u32(env, arguments[1], "nanoseconds", 0, UINT32_MAX, &nanoseconds))
        return NULL;
    if (syscall(SYS_sched_getattr, thread, &attributes, sizeof attributes, 0) < 0) return throw_errno(env, errno, "sched_getattr");
    attributes.size = sizeof attributes;
    attributes.runtime = nanoseconds;
    if (syscall(SYS_sched_setattr, thread, &attributes, 0) < 0) return throw_errno(env, errno, "sched_setattr");
    return NULL;
}

/* ---- module ---- */

static bool export_class(napi_env env, napi_value exports, const char *name, napi_callback constructor, size_t count,
                         const napi_property_descriptor *methods) {
    napi_value class;
    return check(env, napi_define_class(env, name, NAPI_AUTO_LENGTH, constructor, NULL, count, methods, &class)) &&
           check(env, napi_set_named_property(env, exports, name, class));
}

NAPI_MODULE_INIT() {
    const napi_property_descriptor netlink[] = {
        {.utf8name = "transact", .method = netlink_transact, .attributes = napi_default_method},
        {.utf8name = "send", .method = netlink_send, .attributes = napi_default_method},
        {.utf8name = "receive", .method = netlink_receive, .attributes = napi_default_method},
        {.utf8name = "close", .method = netlink_close, .attributes = napi_default_method},
    };
    const napi_property_descriptor queue[] = {
        {.utf8name = "start", .method = queue_start, .attributes = napi_default_method},
        {.utf8name = "settle", .method = queue_settle, .attributes = napi_default_method},
        {.utf8name = "replace", .method = queue_replace, .attributes = napi_default_method},
        {.utf8name = "release", .method = queue_release, .attributes = napi_default_method},
        {.utf8name = "stats", .method = queue_stats, .attributes = napi_default_method},
        {.utf8name = "close", .method = queue_close, .attributes = napi_default_method},
    };
    const napi_property_descriptor raw[] = {
        {.utf8name = "send", .method = raw_send, .attributes = napi_default_method},
        {.utf8name = "frame", .method = raw_frame, .attributes = napi_default_method},
        {.utf8name = "close", .method = raw_close, .attributes = napi_default_method},
    };
    const napi_property_descriptor bpf_map[] = {
        {.utf8name = "get", .method = bpf_map_get, .attributes = napi_default_method},
        {.utf8name = "put", .method = bpf_map_put, .attributes = napi_default_method},
        {.utf8name = "delete", .method = bpf_map_delete, .attributes = napi_default_method},
        {.utf8name = "next", .method = bpf_map_next, .attributes = napi_default_method},
        {.utf8name = "pin", .method = bpf_map_pin, .attributes = napi_default_method},
        {.utf8name = "fd", .getter = bpf_map_fd, .attributes = napi_default},
        {.utf8name = "close", .method = bpf_map_close, .attributes = napi_default_method},
    };
    const napi_property_descriptor bpf_program[] = {
        {.utf8name = "run", .method = bpf_program_run, .attributes = napi_default_method},
        {.utf8name = "pin", .method = bpf_program_pin, .attributes = napi_default_method},
        {.utf8name = "close", .method = bpf_program_close, .attributes = napi_default_method},
    };
    if (!export_class(env, exports, "NetlinkSocket", netlink_new, 4, netlink) ||
        !export_class(env, exports, "BpfMap", bpf_map_new, 7, bpf_map) ||
        !export_class(env, exports, "BpfProgram", bpf_program_new, 3, bpf_program) ||
        !export_class(env, exports, "PacketQueue", queue_new, 6, queue) ||
        !export_class(env, exports, "RawSender", raw_new, 3, raw))
        return NULL;
    const napi_property_descriptor threads[] = {{.utf8name = "setSlice", .method = set_slice, .attributes = napi_enumerable}};
    if (!check(env, napi_define_properties(env, exports, 1, threads))) return NULL;
    return exports;
}
