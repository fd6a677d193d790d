#!/usr/bin/env node
// Scores requests: score.js HOST:PORT REQUEST.json... prints one response in JSON a line.
// Once, in this folder: npm ci. The protos are read as they are; nothing is generated.
'use strict';
const fs = require('fs');
const path = require('path');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const root = process.env.DIN_SOURCE_DIR || path.join(__dirname, '..', '..');
const definition = protoLoader.loadSync('proto/scoring.proto', {
  includeDirs: [root], keepCase: true, longs: String, enums: String, arrays: true, defaults: true,
});
const { ScoringService } = grpc.loadPackageDefinition(definition).din.v1;

function score(service, request) {
  return new Promise((resolve, reject) => {
    const done = (error, response) => (error ? reject(error) : resolve(response));
    service.Score(request, { deadline: Date.now() + 5000 }, done);
  });
}

async function main([address, ...files]) {
  const service = new ScoringService(address, grpc.credentials.createInsecure());
  for (const file of files) {
    console.log(JSON.stringify(await score(service, JSON.parse(fs.readFileSync(file, 'utf8')))));
  }
  service.close();
}

main(process.argv.slice(2)).catch((error) => {
  console.error(`${grpc.status[error.code] || 'error'}: ${error.details || error.message}`);
  process.exitCode = 1;
});
