// An application in Node: JSON, events, trailers, an upload that is counted as it comes.
const http = require('http');
http.createServer((request, response) => {
  const { pathname } = new URL(request.url, 'http://node.example');
  if (pathname === '/events') {
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    let number = 0;
    const timer = setInterval(() => {
      response.write(`data: ${number++}\n\n`);
      if (number === 5) { clearInterval(timer); response.end(); }
    }, 100);
  } else if (pathname === '/upload') {
    let length = 0;
    request.on('data', (piece) => { length += piece.length; });
    request.on('end', () => response.end(`${length}`));
  } else {
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ method: request.method, url: request.url, host: request.headers.host }));
  }
}).listen(8083, '127.0.0.1');
