#!/usr/bin/env python3
"""Runs an example client against a live server and holds its answers to the golden scores.

  clients_test.py python|node DIN_SERVER WORK_DIRECTORY

Exits with 77 (skipped) where the client's packages are missing and cannot be installed.
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

SOURCE = pathlib.Path(os.environ["DIN_SOURCE_DIR"])
TOLERANCE = 1e-5
SKIPPED = 77


def skip(reason):
    print("skipped:", reason)
    sys.exit(SKIPPED)


def python_client(work):
    if subprocess.run(["/usr/bin/python3", "-c", "import grpc, google.protobuf"], check=False).returncode:
        skip("python3-grpcio or python3-protobuf is not installed")
    stubs = work / "stubs"
    stubs.mkdir(exist_ok=True)
    subprocess.run(["protoc", f"-I{SOURCE}", f"--python_out={stubs}", f"--grpc_out={stubs}",
                    f"--plugin=protoc-gen-grpc={shutil.which('grpc_python_plugin')}",
                    SOURCE / "proto/model_spec.proto", SOURCE / "proto/scoring.proto"], check=True)
    return ["/usr/bin/python3", SOURCE / "clients/python/score.py"], {"PYTHONPATH": str(stubs)}


def node_client(work):
    if not shutil.which("node") or not shutil.which("npm"):
        skip("node or npm is not installed")
    for name in ("score.js", "package.json", "package-lock.json"):
        shutil.copy(SOURCE / "clients/node" / name, work / name)
    if not (work / "node_modules/@grpc/proto-loader").is_dir():
        npm = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=work, check=False)
        if npm.returncode:
            skip("npm ci failed; is there a registry?")
    return ["node", work / "score.js"], {"DIN_SOURCE_DIR": str(SOURCE)}


def golden_requests(work):
    """One request file for each golden case, with the scores it must give."""
    paths, expected = [], []
    for model in sorted(p.name for p in (SOURCE / "tests/golden").iterdir() if (p / "1").is_dir()):
        for line in (SOURCE / "tests/golden" / model / "1/golden.jsonl").read_text().splitlines():
            case = json.loads(line)
            request = {key: case[key] for key in ("features", "sequences", "candidates") if key in case}
            request["model"] = model
            path = work / f"{model}-{case['id']}.json"
            path.write_text(json.dumps(request))
            paths.append(path)
            expected.append(case["scores"])
    return paths, expected


def start_server(program, work):
    root, port_file = work / "root", work / "port"
    port_file.unlink(missing_ok=True)
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(SOURCE / "tests/golden", root, ignore=shutil.ignore_patterns("*.py", "*.md"))
    server = subprocess.Popen([program, "--model-root", root, "--listen", "127.0.0.1:0", "--port-file", port_file])
    for _ in range(1000):
        if port_file.exists():
            return server, f"127.0.0.1:{port_file.read_text().split()[0]}"
        if server.poll() is not None:
            break
        time.sleep(0.02)
    sys.exit("the server does not listen")


def run(command, environment):
    done = subprocess.run(command, env={**os.environ, **environment}, check=False, capture_output=True, text=True,
                          timeout=120)
    sys.stderr.write(done.stderr)
    return done


def compare(responses, expected):
    scores, largest = 0, 0.0
    for response, golden in zip(responses, expected):
        assert len(response["scores"]) == len(golden), (response, golden)
        assert sorted(response["index"]) == list(range(len(golden))), response["index"]
        for index, score in zip(response["index"], response["scores"]):
            largest = max(largest, abs(score - golden[index]))
            scores += 1
    print(f"{scores} golden scores, largest error {largest:.3g}")
    return scores > 300 and largest <= TOLERANCE


def main():
    language, program, work = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    work.mkdir(parents=True, exist_ok=True)
    command, environment = {"python": python_client, "node": node_client}[language](work)
    paths, expected = golden_requests(work)
    server, address = start_server(program, work)
    bad = work / "bad.json"
    bad.write_text(json.dumps({"model": "none"}))
    try:
        client = run([*command, address, *paths], environment)
        responses = [json.loads(line) for line in client.stdout.splitlines()]
        good = client.returncode == 0 and len(responses) == len(paths) and compare(responses, expected)
        refused = run([*command, address, bad], environment)
        good = good and refused.returncode == 1 and "NOT_FOUND" in refused.stderr
    finally:
        server.send_signal(signal.SIGINT)
    return 0 if server.wait(timeout=60) == 0 and good else 1


if __name__ == "__main__":
    sys.exit(main())
