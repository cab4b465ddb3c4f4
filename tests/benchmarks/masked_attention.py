"""One masked attention layer, forward and backward, beside PyG's TransformerConv, interleaved in one process.

Run by hand or by ``make bench``:

    python tests/benchmarks/masked_attention.py [--nodes 6607] [--edges 144211] [--channels 64] [--heads 4] [--repeats 15]

Prints medians, ratios and the machine. Machines are shared and noisy: compare ratios.
"""

import argparse
import os
import platform
import statistics
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch_geometric
from torch_geometric.nn import TransformerConv

from pyg_nsa import EdgeSet, MaskedAttentionBlock, NSAConv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in dict(nodes=6607, edges=144211, channels=64, heads=4, repeats=15).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.manual_seed(0)
    edge_index = torch.randint(args.nodes, (2, args.edges))
    start = time.perf_counter()
    edges = EdgeSet.from_edge_index(edge_index, args.nodes, args.nodes)
    edges.transpose()
    build = time.perf_counter() - start
    unique = edges.edge_index()
    x = torch.randn(args.nodes, args.channels, requires_grad=True)
    size = args.channels // args.heads
    contenders = {
        "TransformerConv (PyG)": (TransformerConv(args.channels, size, args.heads), unique),
        "NSAConv, edge_index": (NSAConv(args.channels, size, args.heads), unique),
        "NSAConv, EdgeSet built once": (NSAConv(args.channels, size, args.heads), edges),
        "MaskedAttentionBlock, EdgeSet": (MaskedAttentionBlock(args.channels, args.heads), edges),
    }
    times = {name: ([], []) for name in contenders}
    for repeat in range(args.repeats + 2):
        for name, (module, pairs) in contenders.items():
            t0 = time.perf_counter()
            out = module(x, pairs)
            t1 = time.perf_counter()
            out.square().sum().backward()
            t2 = time.perf_counter()
            if repeat >= 2:
                times[name][0].append(t1 - t0)
                times[name][1].append(t2 - t0)
    base = statistics.median(times["TransformerConv (PyG)"][1])
    print(
        f"{args.nodes} nodes, {edges.num_pairs} random pairs, {args.channels} channels, {args.heads} heads, float32; "
        f"EdgeSet built in {build * 1e3:.0f} ms; medians of {args.repeats}"
    )
    print(
        f"torch {torch.__version__}, torch_geometric {torch_geometric.__version__}, {platform.machine()}, "
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    )
    print(f"{'':32s}{'forward':>12s}{'fwd + bwd':>12s}{'ratio':>9s}")
    for name, (forward, both) in times.items():
        f, b = statistics.median(forward), statistics.median(both)
        print(f"{name:32s}{f * 1e3:9.1f} ms{b * 1e3:9.1f} ms{base / b:8.1f}x")


if __name__ == "__main__":
    main()
