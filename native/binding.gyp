{
  "targets": [
    {
      "target_name": "namegate",
      "sources": ["addon.c", "bpf.c", "netlink.c", "outstanding.c", "queue.c", "raw.c", "watchdog.c"],
      "defines": ["NAPI_VERSION=9", "_GNU_SOURCE"],
      "cflags": ["-O2", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-fstack-protector-strong"],
      "cflags_c": ["-std=c11"],
      "cflags!": ["-O3", "-Wno-unused-parameter"],
      "ldflags": ["-Wl,-z,relro,-z,now"],
      "libraries": ["-pthread"]
    }
  ]
}
