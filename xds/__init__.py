"""How every proxy is told: NodePolicy -> listeners, ECDS filters, clusters; ADS server; ACK book.

The name is shared with the `xds` package of xds-protos (xds.core, xds.type, ...): the path is extended so that both
are importable. Hence no module here may be called annotations, core, data, service or type.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
