import { constants } from "node:os";

/** Why the kernel refused a command: `code` for programs, `text` for people. */
export interface Refusal {
  readonly code: RefusalCode;
  readonly text: string;
}

/** Where the kernel has several words for one thing (it depends on the command), we have one. */
export type RefusalCode =
  | "full" // maxelem reached: nothing more goes in until something leaves
  | "no-set"
  | "set-exists" // with other parameters
  | "exists" // the element; the wildcard or interface element that excludes it
  | "absent" // the element, the entry
  | "in-use" // a rule or a list refers to the set
  | "type" // no such set type, or not this revision or family
  | "limit" // too many sets
  | "invalid" // an address, prefix, port, protocol, name the kernel does not take
  | "unsupported" // by this kernel's configuration, or by how the set was made (timeout, counters, comment, skbinfo)
  | "permission"
  | "busy"
  | "memory"
  | "no-answer" // the call itself failed; `text` has its code
  | "other";

const E = constants.errno;

/** ip_set.h enum ipset_errno, ip_set_hash.h. */
const IPSET: Readonly<Record<number, readonly [RefusalCode, string]>> = {
  4097: ["invalid", "the kernel cannot read it: an address of another family, or another ipset protocol"],
  4098: ["type", "the kernel has no such set type, revision or family"],
  4099: ["limit", "the kernel's maximum of sets is reached"],
  4100: ["in-use", "the set is in use"],
  4101: ["set-exists", "a set with the second name exists already"],
  4102: ["type", "the sets have different types"],
  4103: ["exists", "element already added, or not there to delete"],
  4104: ["invalid", "prefix length not allowed by the set type"],
  4105: ["invalid", "netmask not allowed by the set type"],
  4106: ["invalid", "address family is not the set's"],
  4107: ["unsupported", "the set was made without timeout"],
  4108: ["in-use", "the set is referred to by a rule or a set"],
  4109: ["invalid", "an IPv4 address was expected"],
  4110: ["invalid", "an IPv6 address was expected"],
  4111: ["unsupported", "the set was made without counters"],
  4112: ["unsupported", "the set was made without comment"],
  4113: ["invalid", "mark mask not allowed"],
  4114: ["unsupported", "the set was made without skbinfo"],
  4352: ["full", "set is full"],
  4353: ["invalid", "the null element cannot be stored in this set type"],
  4354: ["invalid", "protocol not allowed by the set type"],
  4355: ["invalid", "protocol missing"],
  4356: ["invalid", "ranges are not supported by the set type"],
  4357: ["invalid", "not a valid range"],
};

/** An ipset answer's positive error number. */
export function ipsetRefusal(error: number): Refusal {
  const known = IPSET[error];
  if (known !== undefined) return { code: known[0], text: known[1] };
  if (error === E.ENOENT) return { code: "no-set", text: "set does not exist" };
  if (error === E.EEXIST) return { code: "set-exists", text: "a set of this name exists with other parameters" };
  return errnoRefusal(error);
}

/** A plain errno, as conntrack and nf_tables answer. */
export function errnoRefusal(error: number): Refusal {
  switch (error) {
    case E.ENOENT:
      return { code: "absent", text: "no such entry" };
    case E.EEXIST:
      return { code: "exists", text: "exists already" };
    case E.EPERM:
    case E.EACCES:
      return { code: "permission", text: "not permitted (CAP_NET_ADMIN is needed)" };
    case E.EBUSY:
      return { code: "busy", text: "busy" };
    case E.EAGAIN:
      return { code: "busy", text: "the kernel asks to try again" };
    case E.ENOMEM:
    case E.ENOBUFS:
      return { code: "memory", text: "the kernel has no memory for it" };
    case E.EINVAL:
    case E.ERANGE:
      return { code: "invalid", text: "the kernel finds a value invalid" };
    case E.EOPNOTSUPP:
      return { code: "unsupported", text: "not supported by this kernel" };
    default:
      return { code: "other", text: `kernel error ${error}` };
  }
}

/** The call failed before the kernel answered. */
export function noAnswer(reason: string): Refusal {
  if (reason === "EPERM" || reason === "EACCES") return errnoRefusal(E.EPERM);
  return { code: "no-answer", text: `no answer from the kernel: ${reason}` };
}
