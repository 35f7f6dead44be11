// Servers of Node: HTTP/1.1 at PORT, HTTP/2 in cleartext at PORT + 1: node_origin.js PORT
"use strict";
const http = require("http");
const http2 = require("http2");

const port = Number(process.argv[2]);

function answer(request, response) {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    response.setHeader("content-type", "application/json");
    const body = { version: request.httpVersion, url: request.url, bytes: Buffer.concat(chunks).length };
    const send = () => response.end(JSON.stringify(body));
    if (request.url === "/slow") setTimeout(send, 300);
    else send();
  });
}

http.createServer(answer).listen(port, "0.0.0.0", () => {
  http2.createServer(answer).listen(port + 1, "0.0.0.0");
});
