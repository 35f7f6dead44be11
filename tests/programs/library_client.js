// Node's HTTP libraries, as applications use them: library_client.js ADDRESS PORT NAME CA TOKEN
// Over TLS, unless CA is empty. Says of each library what became of its requests: a status, or how it failed.
"use strict";
const fs = require("fs");
const dns = require("dns");

const [address, port, name, caFile, token] = process.argv.slice(2);
const http = require(caFile ? "https" : "http");
const ca = caFile ? fs.readFileSync(caFile) : undefined;
const scheme = caFile ? "https" : "http";
const headers = { authorization: `Bearer ${token}` };
const body = "b".repeat(3000000);
const ASKED = [
  {},
  { headers },
  {},
  { path: `/?access_token=${token}` },
  { headers: { cookie: `session=${token}` } },
  { body },
  { body, headers },
];

// As /etc/hosts would have it.
const resolve = dns.lookup;
dns.lookup = (host, options, done) => resolve(host === name ? address : host, options, done);

// How a request failed, below all that a library says of it.
function failure(error, asked) {
  const deepest = error.cause || error;
  if (asked.body && deepest.message !== "timeout" && deepest.name !== "TimeoutError") return "lost";
  return deepest.code === "ECONNRESET" || deepest.code === "EPIPE" ? "reset" : String(deepest.code || deepest);
}

function request(agent, asked) {
  const { path = "/", headers = {}, body } = asked;
  return new Promise((resolve) => {
    const options = { host: name, port, path, agent, ca, headers, method: body ? "POST" : "GET", timeout: 10000 };
    const request = http.request(options, (response) => {
      response.resume();
      response.on("end", () => resolve(response.statusCode));
      response.on("error", (error) => resolve(failure(error, asked)));
    });
    request.on("timeout", () => request.destroy(new Error("timeout")));
    request.on("error", (error) => resolve(failure(error, asked)));
    request.end(body);
  });
}

async function fetched(asked) {
  const { path = "/", headers = {}, body } = asked;
  try {
    const options = { headers, body, method: body ? "POST" : "GET", signal: AbortSignal.timeout(10000) };
    const response = await fetch(`${scheme}://${name}:${port}${path}`, options);
    await response.text();
    return response.status;
  } catch (error) {
    return failure(error, asked);
  }
}

async function main() {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const told = { http: [], fetch: [] };
  for (const asked of ASKED) told.http.push(await request(agent, asked));
  for (const asked of ASKED) told.fetch.push(await fetched(asked));
  console.log(JSON.stringify(told));
  process.exit(0);
}

main();
