// Node's HTTP/1.1 and HTTP/2 clients, until the server says good-bye: node_client.js ADDRESS PORT NAME CA TOKEN
"use strict";
const fs = require("fs");
const https = require("https");
const http2 = require("http2");

const [address, port, name, caFile, token] = process.argv.slice(2);
const ca = fs.readFileSync(caFile);
const tls = { ca, servername: name };

function http1(agent, path, headers, body) {
  return new Promise((resolve, reject) => {
    const options = { host: address, port, path, agent, method: body ? "POST" : "GET", headers: { host: name, ...headers }, ...tls };
    const request = https.request(options, (response) => {
      let text = "";
      response.on("data", (chunk) => (text += chunk));
      response.on("end", () => resolve([response.statusCode, text, request.reusedSocket]));
    });
    request.on("error", reject);
    request.end(body);
  });
}

function stream(session, path, headers, sent) {
  return new Promise((resolve, reject) => {
    const request = session.request({ ":path": path, ":authority": name, ...headers });
    // By then it is written.
    if (sent) setImmediate(() => setImmediate(sent));
    let status;
    let text = "";
    request.on("response", (fields) => (status = fields[":status"]));
    request.on("data", (chunk) => (text += chunk));
    request.on("end", () => resolve([status, text]));
    request.on("error", reject);
  });
}

async function main() {
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1 });
  const listed = { authorization: `Bearer ${token}` };
  const result = {};
  result.http1 = [
    await http1(agent, "/a", {}),
    await http1(agent, "/b", {}, "x".repeat(100000)),
    await http1(agent, "/c", listed),
    await http1(agent, "/d", {}),
  ];
  agent.destroy();
  const session = http2.connect(`https://${address}:${port}`, tls);
  result.http2 = await Promise.all([stream(session, "/e", {}), stream(session, "/f", listed), stream(session, "/g", {})]);
  const goaway = new Promise((resolve) => session.on("goaway", resolve));
  const closed = new Promise((resolve) => session.on("close", resolve));
  // The server is told to stop while this is under way.
  result.slow = await stream(session, "/slow", {}, () => console.log("asked"));
  result.goaway = await goaway;
  await closed;
  console.log(JSON.stringify(result));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
