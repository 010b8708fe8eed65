"""The owner map with bcc: looked up first, written when the owner changes; a line for each retransmit."""

from bcc import BPF

TEXT = """
#include <net/sock.h>

BPF_TABLE("lru_hash", u64, u32, owners, 8192);
BPF_PERF_OUTPUT(events);

struct event {
    u32 owner, current_pid;
    u16 sport, dport;
};

int kprobe__tcp_sendmsg(struct pt_regs *ctx, struct sock *sk)
{
    u64 key = (u64)sk;
    u32 pid = bpf_get_current_pid_tgid() >> 32, *known = owners.lookup(&key);

    if (!known || *known != pid)
        owners.update(&key, &pid);
    return 0;
}

TRACEPOINT_PROBE(tcp, tcp_retransmit_skb)
{
    u64 key = (u64)args->skaddr;
    u32 *known = owners.lookup(&key);
    struct event event = {};

    if (known)
        event.owner = *known;
    event.current_pid = bpf_get_current_pid_tgid() >> 32;
    event.sport = args->sport;
    event.dport = args->dport;
    events.perf_submit(args, &event, sizeof(event));
    return 1;
}
"""


def main() -> None:
    probe = BPF(text=TEXT)

    def tell(_cpu: int, data: object, _size: int) -> None:
        event = probe["events"].event(data)
        print(event.owner, event.sport, event.dport, event.current_pid, flush=True)

    probe["events"].open_perf_buffer(tell)
    while True:
        try:
            probe.perf_buffer_poll()
        except KeyboardInterrupt:
            return


main()
