"""The object store on any S3 server, by boto3.

store        `S3Store`: the seam's methods
reading      whole objects, ranges, streams that go on where they were cut
writing      whole objects and joined ones, looked at again
upload       one object of many parts
connection   the client, and how often a call is tried
failures     what an answer of the server or of the network means here
"""

from core.objectstore.s3.store import S3Store

__all__ = ["S3Store"]
