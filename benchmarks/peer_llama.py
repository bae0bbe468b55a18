"""llama.cpp's side of `benchmarks.packed_cpu`; run by an interpreter that has llama-cpp-python 0.3.36.

usage: peer_llama.py GGUF THREADS

Reads one JSON request a line and answers each with one JSON line when it is done: {"prefill": [ids]}; {"decode": id,
"after": n, "count": m}; {"logits": [ids]}, answered with those after the last id. Between requests it waits, so that
two programs can take turns on the same cores.
"""

import ctypes
import json
import sys

import llama_cpp

CONTEXT, BATCH = 1024, 512


def main() -> None:
    path, threads = sys.argv[1], int(sys.argv[2])
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = CONTEXT, BATCH, BATCH
    params.n_threads = params.n_threads_batch = threads
    params.swa_full = True  # so that the cache can be cut anywhere
    context = llama_cpp.llama_init_from_model(model, params)
    memory = llama_cpp.llama_get_memory(context)
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))

    def forward(ids: list[int]) -> None:
        array = (llama_cpp.llama_token * len(ids))(*ids)
        status = llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(ids)))
        if status:
            raise RuntimeError(f"llama_decode: status {status}")

    def last_logits() -> list[float]:
        found = llama_cpp.llama_get_logits_ith(context, -1)
        return list(ctypes.cast(found, ctypes.POINTER(ctypes.c_float * vocabulary)).contents)

    print(json.dumps({"system": llama_cpp.llama_print_system_info().decode()}), flush=True)
    for line in sys.stdin:
        request, answer = json.loads(line), {}
        if "decode" in request:
            llama_cpp.llama_memory_seq_rm(memory, 0, request["after"], -1)
            for _ in range(request["count"]):
                forward([request["decode"]])
                llama_cpp.llama_synchronize(context)
        else:
            llama_cpp.llama_memory_clear(memory, True)
            forward(request.get("prefill") or request["logits"])
            llama_cpp.llama_synchronize(context)
            if "logits" in request:
                answer = {"logits": last_logits()}
        print(json.dumps(answer), flush=True)


main()
