import { SHOP_NEEDS, type Shop } from "./shop.ts";

export const SELF_TEST_NEEDS = { ...SHOP_NEEDS, commands: [...SHOP_NEEDS.commands, "tc"] };
/** Canaries often, rules seldom: what is wrong stays long enough to be found. */
export const SELF_TEST_ARGS = ["--self-test-interval", "0.3", "--check-interval", "30"];

export interface TestedStatus {
  readonly mode: string;
  readonly effectiveMode: string;
  readonly selfTest: {
    readonly state: string;
    readonly why: string | null;
    readonly podsSeen: number;
    readonly warnings: readonly string[];
  };
  readonly pods: readonly { readonly name: string; readonly enforced: boolean; readonly why?: string }[];
}

export async function statusOf(it: Shop): Promise<TestedStatus> {
  return (await it.agent.status()) as unknown as TestedStatus;
}

export const podOf = (status: TestedStatus, name: string): TestedStatus["pods"][number] | undefined =>
  status.pods.find((pod) => pod.name === name);
