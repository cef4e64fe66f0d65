"""The configuration: the example holds, and everything that is wrong is named at once."""

from __future__ import annotations

import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bgpd.adapters.netlink.encode import Resilience
from bgpd.adapters.store.open import Access
from bgpd.adapters.store.records import pool_bytes
from bgpd.config.error import ConfigError, Defect
from bgpd.config.load import load
from bgpd.config.schema import Config
from bgpd.core.resource.check import findings
from bgpd.core.resource.kinds import IPPOOL
from bgpd.model.event import Options
from bgpd.model.forwarding import RouteSettings
from bgpd.model.health import HealthCheck, StaticPrefix
from bgpd.model.node import Node
from bgpd.model.peer import MaxPrefix, NextHopMode, Peer, PeerPolicy, Role, SecretRef
from bgpd.model.pool import Mode, Pool
from bgpd.model.prefix import Address, Family, Prefix

pytestmark = pytest.mark.core

EXAMPLE = Path(__file__).parents[2] / "config" / "bgpd.toml"

MINIMAL = """
[node]
name = "node-a"
address = "10.0.0.1/24"
asn = 64512
"""

PEER = """
[[peer]]
name = "tor1"
address = "192.0.2.1"
asn = 65001
local_address = "192.0.2.2"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "bgpd.toml"
    path.write_text(text)
    return path


def defects(folder: Path, text: str) -> list[tuple[str, str, str]]:
    path = written(folder, text)
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert {path} == {defect.file for defect in raised.value.errors}
    return [(defect.path, defect.value, defect.rule) for defect in raised.value.errors]


def one_defect(folder: Path, text: str) -> tuple[str, str, str]:
    (found,) = defects(folder, text)
    return found


def test_a_minimal_file_has_defaults_for_the_rest(tmp_path):
    """Address and AS number are enough: the rest has defaults, and the event tells the core all of it."""
    config = load(written(tmp_path, MINIMAL))

    event = config.configured()

    assert event.node == Node(
        name="node-a",
        asn=64512,
        ipv4_address=Address.parse("10.0.0.1"),
        ipv4_subnet=Prefix.parse("10.0.0.0/24"),
        vtep_mac=event.node.vtep_mac,
    )
    assert event.node.vtep_mac.startswith("66:")
    assert ((), Options(router_id=Address.parse("10.0.0.1"))) == (event.peers, event.options)
    assert config.default_pool() is None
    assert Address.parse("10.0.0.1") == config.router_id()
    assert config.store.url == "sqlite:///var/lib/bgpd/store.db"


def test_the_default_pool_is_a_right_resource(tmp_path):
    """What the daemon makes of [pool] is what `bgpd apply` would take, for each family and mode."""
    for cidr, mode in (("10.0.0.0/16", "Never"), ("10.0.0.0/32", "CrossSubnet"), ("fd00::/64", "Always")):
        size = "\nblock_size = 32" if cidr.endswith("/32") else ""
        text = f'[pool]\nname = "a.b-1"\ncidr = "{cidr}"\nvxlan_mode = "{mode}"\nfallback = "None"{size}'
        pool = load(written(tmp_path, MINIMAL + text)).default_pool()
        assert pool is not None
        value = msgspec.json.decode(pool_bytes(pool, datetime.now(UTC)))
        assert [] == list(findings(IPPOOL, "a.b-1", value))


def test_labels_are_text(tmp_path):
    """What YAML would make text of in a label, the configuration does: numbers and true or false."""
    config = load(written(tmp_path, MINIMAL + 'labels = { rack = "a", gpu = true, "topology/zone" = 1 }'))

    assert (("gpu", "true"), ("rack", "a"), ("topology/zone", "1")) == config.own_node().labels


def test_the_host_name_is_the_default_name(tmp_path):
    """Without node.name the node has the host's name in lower case."""
    name = load(written(tmp_path, MINIMAL.replace('name = "node-a"', ""))).node.name

    assert name
    assert name.lower() == name


def test_every_value_reaches_the_core(tmp_path):
    """What the file says is what the event says, peers with our AS number as theirs to us."""
    config = load(
        written(
            tmp_path,
            MINIMAL
            + PEER
            + """port = 1179
hold_time_s = 9
graceful_restart_s = 60
passive = true
password = { name = "fabric", key = "tor1" }
multihop_ttl = 5
listen_port = 1180
interface = "eth1"
add_path = true
families = ["ipv4", "ipv6"]
filters = ["a", "b"]
next_hop_mode = "Self"
allowed_own_asns = 2
max_prefix = { limit = 1000, restart_s = 60 }
role = "customer"
role_strict = true
[pool]
name = "p"
cidr = "fd00::/64"
vxlan_mode = "CrossSubnet"
fallback = "None"
[fallback]
kind = "None"
restore_after_s = 1
restore_ceiling_s = 2.5
vxlan_vni = 7
vxlan_port = 8472
[ecmp]
limit = 4
multipath_relax = false
weighted = true
[decision]
always_compare_med = true
enforce_first_as = true
[startup]
peers_learned_ceiling_s = 3
""",
        )
    )

    event = config.configured()

    assert event.peers == (
        Peer(
            name="tor1",
            address=Address.parse("192.0.2.1"),
            asn=65001,
            local_address=Address.parse("192.0.2.2"),
            local_asn=64512,
            port=1179,
            hold_time_s=9,
            graceful_restart_s=60,
            families=(Family.IPV4, Family.IPV6),
            passive=True,
            password=SecretRef("fabric", "tor1"),
            multihop_ttl=5,
            listen_port=1180,
            interface="eth1",
            add_path_receive=True,
            role=Role.CUSTOMER,
            role_strict=True,
            policy=PeerPolicy(
                filters=("a", "b"),
                next_hop_mode=NextHopMode.SELF,
                allowed_own_asns=2,
                max_prefix=MaxPrefix(1000, 75, 60),
            ),
        ),
    )
    assert event.options == Options(
        peers_learned_ceiling_s=3.0,
        restore_after_s=1.0,
        restore_ceiling_s=2.5,
        ecmp_limit=4,
        multipath_relax=False,
        weighted_ecmp=True,
        always_compare_med=True,
        enforce_first_as=True,
        router_id=Address.parse("10.0.0.1"),
        fallback=(),
        vxlan_vni=7,
        vxlan_port=8472,
    )
    assert config.default_pool() == Pool(
        name="p",
        cidr=Prefix.parse("fd00::/64"),
        block_size=122,
        vxlan_mode=Mode.CROSS_SUBNET,
        fallback=(),
    )


def test_the_example_holds_and_shows_each_default():
    """The example loads; a key that is commented out shows the default that stands in the schema."""
    text = re.sub(
        r"^# \[\[[a-z]+\]\]\n(# .*\n)+", "", EXAMPLE.read_text(), flags=re.MULTILINE
    )  # lists without a default
    shown = re.sub(r"^# ([a-z0-9_]+ = )", r"\1", text, flags=re.MULTILINE)
    shown = re.sub(r'^(name = "node-a"|router_id = .*|url = "etcds:.*)$', "", shown, flags=re.MULTILINE)

    plain = load(EXAMPLE)

    as_shown: Any = tomllib.loads(shown)
    for name in ("node", "pool"):
        for key in ("name", "router_id", "block_size", "fallback"):
            as_shown[name].pop(key, None)
    as_shown["bgp"].pop("mesh")
    as_shown["api"].pop("group")
    for key in ("bfd", "filters", "max_prefix", "role"):
        as_shown["peer"][0].pop(key)
    as_shown["peer"][0].pop("password")
    for key in ("labels", "address_ipv6"):
        as_shown["node"].pop(key)
    as_shown["wireguard"].pop("directory")
    as_shown["mtu"].pop("file")
    for key in ("ca", "cert", "key", "server_name", "user", "password_file"):
        as_shown["store"].pop(key)
    for key in ("certificate", "key", "user", "password"):
        as_shown["metrics"].pop(key)
        as_shown["web"].pop(key)
    for key in ("host", "port", "user", "password", "ca", "certificate", "key"):
        as_shown["mqtt"].pop(key)
    for key in ("vrf", "source_ipv4", "source_ipv6"):
        as_shown["kernel"].pop(key)
    assert msgspec.convert(as_shown, Config, dec_hook=lambda kind, value: kind.parse(value)) == plain


@pytest.mark.parametrize(
    ("name", "expected"),
    [("kube-master", "25.79.212.8"), ("nodeTest", "109.174.215.226"), ("Testrobin123", "207.94.5.27")],
)
def test_router_id_may_be_a_hash_of_the_name(tmp_path, name, expected):
    """ "hash" gives the id that Calico gives a node of that name (CALICO_ROUTER_ID)."""
    text = re.sub(r"name = .*", f'name = "{name}"', MINIMAL) + 'router_id = "hash"\n'

    assert str(load(written(tmp_path, text)).router_id()) == expected


def test_static_prefixes_and_their_checks_are_read(tmp_path):
    """[[announce]] gives prefixes with communities, dropped here unless they are single addresses; [[check]] what they hang on."""
    text = (
        MINIMAL
        + """
[[announce]]
prefixes = ["203.0.113.53/32", "203.0.113.0/28"]
communities = ["64512:53", "64512:1:2"]
check = "dns"
[[check]]
name = "dns"
tcp = "[fd00::53]:53"
rise = 5
"""
    )
    config = load(written(tmp_path, text))

    same = {"communities": (64512 << 16 | 53,), "large_communities": ((64512, 1, 2),), "check": "dns"}
    assert config.configured().announce == (
        StaticPrefix(prefix=Prefix.parse("203.0.113.53/32"), blackhole=False, **same),
        StaticPrefix(prefix=Prefix.parse("203.0.113.0/28"), blackhole=True, **same),
    )
    assert config.health_checks() == (HealthCheck(name="dns", tcp=(Address.parse("fd00::53"), 53), rise=5),)


@pytest.mark.parametrize(
    ("text", "path", "rule"),
    [
        ("[[announce]]\nprefixes = []", "announce[0].prefixes", "must name at least one prefix"),
        (
            '[[announce]]\nprefixes = ["10.0.0.0/8"]\ncheck = "x"',
            "announce[0].check",
            "must be the name of a [[check]]",
        ),
        (
            '[[announce]]\nprefixes = ["10.0.0.0/8", "10.0.0.0/8"]',
            "announce[0].prefixes[1]",
            "must be announced once only",
        ),
        ('[[announce]]\nprefixes = ["10.0.0.0/8"]\ncommunities = ["1"]', "announce[0].communities[0]", "must be aa:nn"),
        ('[[check]]\nname = "x"', "check[0]", "must have exactly one of command, tcp and http, not none"),
        ('[[check]]\nname = "x"\ntcp = "1.2.3.4"', "check[0].tcp", "must be ADDRESS:PORT"),
        ('[[check]]\nname = "x"\nhttp = "ftp://a"', "check[0].http", "must be a URL that begins with http"),
        ('[[check]]\nname = "x"\ncommand = ["dig"]', "check[0].command", "must begin with an absolute path"),
    ],
)
def test_wrong_static_prefix_or_check_is_named(tmp_path, text, path, rule):
    """Each rule of [[announce]] and [[check]] names its place."""
    found, _, said = one_defect(tmp_path, MINIMAL + text + "\n")

    assert found == path
    assert rule in said


def test_the_example_names_every_key():
    """No key of the schema is missing in the example."""
    text = EXAMPLE.read_text()
    for field in msgspec.structs.fields(Config):
        assert f"[{field.name}]" in text
        section = field.type if isinstance(field.type, type) else field.type.__args__[0]
        for key in msgspec.structs.fields(section):
            assert re.search(rf"^(# )?{key.name} = ", text, re.MULTILINE), f"{field.name}.{key.name}"


def test_a_file_that_is_not_there_says_so(tmp_path):
    """A missing file, a folder, text that is not TOML and bytes that are not text are each named with the file."""
    with pytest.raises(ConfigError, match=rf"^{re.escape(str(tmp_path / 'no'))}: the file does not exist"):
        load(tmp_path / "no")
    with pytest.raises(ConfigError, match="the file cannot be read: Is a directory"):
        load(tmp_path)
    with pytest.raises(ConfigError, match=r"the file is not TOML: .*line 2"):
        load(written(tmp_path, "[node]\nname = \n"))
    (tmp_path / "bgpd.toml").write_bytes(b"[node]\nname = '\xff'\n")
    with pytest.raises(ConfigError, match="the file is not UTF-8 text: byte 15 is wrong"):
        load(tmp_path / "bgpd.toml")


def test_an_unknown_key_suggests_the_one_that_was_meant(tmp_path):
    """An unknown key is named by its path, with the nearest key, or with all where none is near."""
    assert one_defect(tmp_path, MINIMAL + 'adress = "10.0.0.1"') == (
        "node.adress",
        '"10.0.0.1"',
        "unknown key; did you mean 'address'?",
    )
    assert one_defect(tmp_path, MINIMAL + "[[peers]]\nasn = 1") == (
        "peers",
        '[{"asn":1}]',
        "unknown key; did you mean 'peer'?",
    )
    assert one_defect(tmp_path, MINIMAL + "[ecmp]\nzzz = 1") == (
        "ecmp.zzz",
        "1",
        "unknown key; [ecmp] knows limit, multipath_relax, weighted",
    )


def test_all_defects_are_listed_at_once(tmp_path):
    """Wrong keys, kinds and values in several sections, and broken rules in the sound ones, come in one error."""
    found = defects(
        tmp_path,
        MINIMAL.replace("64512", '"x"')
        + PEER.replace('"192.0.2.1"', '"192.0.2.300"')
        + PEER.replace("asn = 65001", "hold_time_s = 2")
        + PEER
        + "hold_time_s = 1\n[fallback]\nrestore_after_s = 10\nrestore_ceiling_s = 5\n[log]\nlevel = 'loud'\n",
    )

    assert found == [
        ("node.asn", '"x"', "must be a whole number, not text"),
        ("peer[0].address", '"192.0.2.300"', "'192.0.2.300' does not appear to be an IPv4 or IPv6 address"),
        ("peer[1].asn", "", "is required"),
        ("log.level", '"loud"', "must be one of 'auto', 'debug', 'info', 'warning', 'error'"),
        ("peer[2].hold_time_s", "1", "must be 0 (no keepalives) or at least 3 (RFC 4271 section 4.2)"),
        ("fallback.restore_ceiling_s", "5", "must be at least restore_after_s (10)"),
    ]


@pytest.mark.parametrize(
    ("text", "path", "rule"),
    [
        (
            MINIMAL + PEER + "ttl_security = 1\nmultihop_ttl = 2",
            "peer[0].ttl_security",
            "must not stand beside multihop_ttl",
        ),
        (MINIMAL + PEER + "passive = true\nlisten_port = 0", "peer[0].listen_port", "must not be 0"),
        (MINIMAL + PEER + "role_strict = true", "peer[0].role_strict", "needs role"),
        (MINIMAL + PEER.replace("65001", "64512") + 'role = "peer"', "peer[0].role", "sessions with another AS only"),
        (MINIMAL + PEER + 'filters = ["a", "a"]', "peer[0].filters", "name each filter once"),
        (MINIMAL + PEER + "max_prefix = { limit = 0 }", "peer[0].max_prefix.limit", ""),
        (MINIMAL + PEER + "extended_next_hop = true", "peer[0].extended_next_hop", "needs a session over IPv6"),
        (
            MINIMAL + PEER.replace("192.0.2.1", "fe80::2").replace("192.0.2.2", "fe80::1"),
            "peer[0].interface",
            "must name the link that fe80::2 is on",
        ),
        (MINIMAL.replace("10.0.0.1/24", "10.0.0.1/33"), "node.address", "prefix length 33 is not in 0..32"),
        (MINIMAL.replace("10.0.0.1/24", "127.0.0.1"), "node.address", "must be a unicast address"),
        (MINIMAL.replace("10.0.0.1/24", "fd00::1/64"), "node.router_id", "is required where node.address is an IPv6"),
        (MINIMAL + 'router_id = "fd00::1"', "node.router_id", "must be written as an IPv4 address other than"),
        (MINIMAL.replace("64512", "0"), "node.asn", "must be a whole number >= 1"),
        (MINIMAL.replace("64512", "4294967295"), "node.asn", "must be a whole number <= 4294967294"),
        (MINIMAL.replace("64512", "23456"), "node.asn", "AS 23456 stands for"),
        (MINIMAL.replace("node-a", "a/b"), "node.name", "must be a name of letters"),
        (MINIMAL + '[store]\nurl = "redis://x"', "store.url", "'redis://x' is not a store"),
        (MINIMAL + '[store]\nurl = "etcd://x"', "store.url", "'x' is not HOST:PORT; write etcd://HOST:PORT"),
        (MINIMAL + '[store]\nurl = "etcds://x:1,y:65536"', "store.url", "'y:65536' is not HOST:PORT"),
        (MINIMAL + '[store]\nurl = "etcd://x:1,x:1"', "store.url", "must name each member once"),
        (MINIMAL + '[store]\nurl = "etcd://x:1/?ca=/x"', "store.url", "is not HOST:PORT"),
        (MINIMAL + '[store]\nca = "/x"', "store.ca", "is for a store of etcd"),
        (MINIMAL + '[store]\nurl = "etcd://x:1"\nca = "/x"', "store.ca", "is for TLS: write etcds://"),
        (MINIMAL + '[store]\nurl = "etcd://x:1"\nserver_name = "x"', "store.server_name", "is for TLS: write etcds://"),
        (MINIMAL + '[store]\nurl = "etcds://x:1"\ncert = "/x"', "store.cert", "only together with key"),
        (MINIMAL + '[store]\nurl = "etcds://x:1"\nkey = "/x"', "store.key", "only together with cert"),
        (MINIMAL + '[store]\nurl = "etcds://x:1"\nuser = "u"', "store.user", "only together with password_file"),
        (MINIMAL + '[store]\nurl = "etcds://x:1"\npassword_file = "/x"', "store.password_file", "together with user"),
        (MINIMAL + '[store]\nurl = "etcds://x:1"\nca = "/no/ca"', "store.ca", "cannot be read: No such file"),
        (MINIMAL + '[store]\nurl = "etcds://x:1"\nca = "x"', "store.ca", "must be an absolute path"),
        (MINIMAL + '[store]\nurl = "sqlite://rel/x"', "store.url", "names no file"),
        (MINIMAL + "[pool]", "pool.cidr", "is required"),
        (MINIMAL + '[pool]\ncidr = "10.65.0.1/16"', "pool.cidr", "the prefix is 10.65.0.0/16"),
        (MINIMAL + '[pool]\ncidr = "10.65.0.0/16"\nblock_size = 33', "pool.block_size", "must be 20 to 32"),
        (MINIMAL + '[pool]\ncidr = "fd00::/64"\nblock_size = 26', "pool.block_size", "must be 116 to 128"),
        (MINIMAL + '[pool]\ncidr = "10.65.0.0/27"', "pool.block_size", "must not be larger than its pool"),
        (MINIMAL + '[pool]\ncidr = "169.254.0.0/17"', "pool.cidr", "must not overlap the link-local"),
        (MINIMAL + '[pool]\ncidr = "224.0.0.0/16"', "pool.cidr", "must be a unicast address"),
        (MINIMAL + PEER + PEER.replace("tor1", "tor2"), "peer[1].address", "must be unique: peer[0] has it"),
        (MINIMAL + PEER + PEER.replace("2.1", "2.9"), "peer[1].name", "must be unique: peer[0] has it"),
        (MINIMAL + PEER.replace("192.0.2.2", "fd00::2"), "peer[0].local_address", "must be an ipv4 address"),
        (MINIMAL + PEER.replace("192.0.2.2", "192.0.2.1"), "peer[0].address", "must not be our own"),
        (MINIMAL + PEER.replace("192.0.2.1", "224.0.0.5"), "peer[0].address", "must be a unicast"),
        (MINIMAL + PEER.replace("192.0.2.2", "0.0.0.0"), "peer[0].local_address", "must be a unicast"),
        (MINIMAL + PEER.replace("65001", "65535"), "peer[0].asn", "AS 65535 is reserved"),
        (MINIMAL + PEER + "port = 0", "peer[0].port", "must be a whole number >= 1"),
        (MINIMAL + PEER + "graceful_restart_s = 4096", "peer[0].graceful_restart_s", "<= 4095"),
        (MINIMAL + PEER + "families = []", "peer[0].families", "must name at least one"),
        (MINIMAL + PEER + 'families = ["ipv4", "ipv4"]', "peer[0].families", "each family once"),
        (MINIMAL + PEER + 'families = ["ipx"]', "peer[0].families", "must be one of 'ipv4', 'ipv6'"),
        (
            MINIMAL + PEER + 'password = { name = "fabric", key = "a/b" }',
            "peer[0].password.key",
            "must be the name of a file: letters, digits and . _ -",
        ),
        (MINIMAL + PEER + 'password = { name = "fabric" }', "peer[0].password.key", "is required"),
        (MINIMAL + PEER + 'password = "secret"', "peer[0].password", "is a table: write [peer[0].password]"),
        (
            MINIMAL + '[pool]\nname = "Main_Pool"\ncidr = "10.0.0.0/16"',
            "pool.name",
            "must be of a-z, 0-9, '-' and '.', and begin and end with a letter or digit",
        ),
        (
            MINIMAL + "labels = { version = 1.10 }",
            "node.labels",
            "must be text in quotes, a whole number, true or false, not a number",
        ),
        (MINIMAL + 'labels = { "a b" = 1 }', "node.labels.a b", "a label's name has 1 to 512 letters"),
        (MINIMAL + PEER + "passive = 1", "peer[0].passive", "must be true or false, not a whole number"),
        (MINIMAL + "[peer]\nasn = 1", "peer", "is a list: write [[peer]]"),
        (MINIMAL + "[[ecmp]]\nlimit = 1", "ecmp", "is a table: write [ecmp]"),
        (MINIMAL + "[fallback]\nvxlan_vni = 16777216", "fallback.vxlan_vni", "<= 16777215"),
        (MINIMAL + "[fallback]\nrestore_after_s = nan", "fallback.restore_after_s", "must be"),
        (MINIMAL + '[api]\nsocket = "bgpd.sock"', "api.socket", "must be an absolute path"),
        (PEER, "node", "is required"),
    ],
)
def test_each_rule_names_place_and_reason(tmp_path, text, path, rule):
    """A value that breaks a rule is named by its path, with the rule."""
    where, _, why = one_defect(tmp_path, text)

    assert path == where
    assert rule in why


def test_a_password_in_the_file_is_refused_and_not_repeated(tmp_path):
    """Whoever writes a password where its reference belongs, or under a name of his own, is told so without the password."""
    wrong = MINIMAL + PEER + 'password = "hush"\nmd5_password = "hush"\n[node.secret]\na = "hush"'

    assert ["node.secret", "peer[0].password", "peer[0].md5_password"] == [
        path for path, _, _ in defects(tmp_path, wrong)
    ]
    with pytest.raises(ConfigError) as raised:
        load(tmp_path / "bgpd.toml")
    assert "hush" not in str(raised.value)


def test_a_secret_that_others_can_read_is_refused(tmp_path):
    """A password's or a key's file that others can use is refused with how to mend it; a private one is good."""
    secret, cert = tmp_path / "secret", tmp_path / "cert"
    secret.write_text("hush\n")
    cert.write_text("public")
    text = (
        MINIMAL
        + f"""[store]
url = "etcds://10.0.0.1:2379,[fd00::1]:2379"
cert = "{cert}"
key = "{secret}"
user = "u"
password_file = "{secret}"
"""
    )
    secret.chmod(0o644)

    found = defects(tmp_path, text)

    assert ["store.key", "store.password_file"] == [path for path, _, _ in found]
    assert all(f"can be used by others (mode 0644): chmod o= {secret}" in rule for _, _, rule in found)
    secret.chmod(0o640)
    assert load(written(tmp_path, text)).store.access() == Access(
        cert=str(cert), key=str(secret), user="u", password_file=str(secret)
    )


def test_a_user_without_tls_is_for_this_machine_only(tmp_path):
    """A password is not sent in the clear, except to loopback."""
    secret = tmp_path / "secret"
    secret.write_text("hush")
    secret.chmod(0o600)
    text = (
        MINIMAL
        + f'[store]\nurl = "etcd://localhost:1,127.0.0.1:1,[::1]:1,HOST"\nuser = "u"\npassword_file = "{secret}"'
    )

    where, _, rule = one_defect(tmp_path, text.replace("HOST", "10.0.0.1:1"))

    assert ("store.user", True) == (where, "through TLS only" in rule)
    assert load(written(tmp_path, text.replace(",HOST", ""))).store.user == "u"


@pytest.mark.parametrize(
    "url",
    ["etcd://u:hush@x:1", "etcds://u:hu@sh@x:1", "etcds://u:hu/sh@x:1", "redis://u:hush@x", "sqlite://u:hush@x/y"],
)
def test_a_password_in_a_url_is_refused_and_not_repeated(tmp_path, url):
    """A URL with a user is refused, and no message has the password."""
    where, value, rule = one_defect(tmp_path, MINIMAL + f'[store]\nurl = "{url}"')

    assert where == "store.url"
    assert "//…@" in value
    assert "hu" not in value + rule
    assert "sh@" not in value + rule


def test_a_defect_is_one_line_for_people():
    """A defect reads as file, path, value and rule; without a value or a path these are left out."""
    file = Path("/etc/x")

    assert str(Defect(file=file, path="a.b", value="3", rule="must be 4")) == "/etc/x: a.b = 3: must be 4"
    assert str(Defect(file=file, path="a.b", rule="is required")) == "/etc/x: a.b: is required"
    assert (
        str(ConfigError((Defect(file=file, path="", rule="is gone"), Defect(file=file, path="c", rule="is required"))))
        == "/etc/x: is gone\n/etc/x: c: is required"
    )


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        ("protocol = 12", "kernel.protocol", "BIRD"),
        ('vrf = "red"\ntable = 10', "kernel.table", "VRF"),
        ("table = 255", "kernel.table", "local addresses"),
        ("rule_priority = 900", "kernel.rule_priority", "main table"),
        ('vrf = "red"\nrule_priority = 900', "kernel.rule_priority", "VRF"),
        ("mtu_bytes = 1000", "kernel.mtu_bytes", "1280"),
        ('source_ipv4 = "fd00::1"', "kernel.source_ipv4", "IPv4 address"),
    ],
)
def test_rules_of_the_kernel_section(tmp_path, text, where, said):
    """A protocol number of others, a table beside a VRF, the local table, a needless rule, a tiny MTU and a mixed-up family are refused."""
    path, _, rule = one_defect(tmp_path, MINIMAL + f"[kernel]\n{text}\n")

    assert where == path
    assert said in rule


def test_kernel_section_reaches_core_and_adapter(tmp_path):
    """Table, metric, source and MTU are the core's to write; protocol, groups and the VRF's table the adapter's."""
    text = """
[kernel]
protocol = 200
metric = 32
source_ipv4 = "10.0.0.1"
mtu_bytes = 1400
vrf = "red"
resilient_buckets = 64
"""
    config = load(written(tmp_path, MINIMAL + text)).in_table(1000)

    routes = config.configured().options.routes
    assert RouteSettings(table=1000, metric=32, source_ipv4=Address.parse("10.0.0.1"), mtu_bytes=1400) == routes
    options = config.kernel.options()
    assert (200, 1000, Resilience(buckets=64)) == (options.protocol, options.resolve_table, options.resilience)


def test_node_with_addresses_of_both_families(tmp_path: Path) -> None:
    """address_ipv6 stands beside an IPv4 address, with the MAC of a VXLAN device of its own (Calico's rule); a wrong one is told."""
    path = tmp_path / "bgpd.toml"
    path.write_text(
        '[node]\nname = "remotehostname"\nasn = 65001\naddress = "10.0.0.1/24"\naddress_ipv6 = "fd00::1/64"\n'
    )
    node = load(path).own_node()
    assert ("10.0.0.1", "fd00::1") == (str(node.ipv4_address), str(node.ipv6_address))
    assert "fd00::/64" == str(node.ipv6_subnet)
    assert "66:3e:ca:a4:db:65" == node.vtep_mac != node.vtep_mac_v6

    for wrong in ("10.0.0.2/24", "fd00::/1000", "ff02::1/64"):
        path.write_text(f'[node]\nname = "n"\nasn = 65001\naddress = "10.0.0.1/24"\naddress_ipv6 = "{wrong}"\n')
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert ["node.address_ipv6"] == [defect.path for defect in caught.value.errors]
