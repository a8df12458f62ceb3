"""An S3 server in memory, for tests.

    s3.py BUCKET

Makes the bucket, prints the server's endpoint, and ends when its standard input does. Conditional puts, on which
Tidemill's lease, catalog and commits rest, work as in S3: the first of two puts with `If-None-Match: *` gets through.
"""

import logging
import sys
import urllib.request

from moto.moto_server.threaded_moto_server import ThreadedMotoServer


def main():
    (bucket,) = sys.argv[1:]
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{bucket}", method="PUT")).close()
    print(endpoint, flush=True)
    sys.stdin.read()
    server.stop()


main()
