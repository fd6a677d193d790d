#!/usr/bin/env python3
"""Scores requests: score.py HOST:PORT REQUEST.json... prints one response in JSON a line.

Needs python3-grpcio and python3-protobuf, and the stubs, once (from the top of the repository):
  mkdir -p stubs && protoc -I. --python_out=stubs --grpc_out=stubs \
    --plugin=protoc-gen-grpc=$(which grpc_python_plugin) proto/model_spec.proto proto/scoring.proto
  PYTHONPATH=stubs clients/python/score.py 127.0.0.1:8500 request.json
"""
import sys

import grpc
from google.protobuf import json_format
from proto import scoring_pb2, scoring_pb2_grpc


def main():
    address, *paths = sys.argv[1:]
    with grpc.insecure_channel(address) as channel:
        service = scoring_pb2_grpc.ScoringServiceStub(channel)
        for path in paths:
            with open(path, encoding="utf-8") as file:
                request = json_format.Parse(file.read(), scoring_pb2.ScoreRequest())
            try:
                response = service.Score(request, timeout=5)
            except grpc.RpcError as error:
                sys.exit(f"{path}: {error.code().name}: {error.details()}")
            print(json_format.MessageToJson(response, preserving_proto_field_name=True, indent=None))


if __name__ == "__main__":
    main()
