import type { TestContext } from "node:test";
import { createLab } from "../../src/cli/lab.ts";
import type { Lab, LabOptions } from "../../src/cli/lab-types.ts";

export { until } from "../../src/cli/lab-process.ts";
export type * from "../../src/cli/lab-types.ts";

/** The programs that a lab itself needs. */
export const LAB_COMMANDS = ["ip", "iptables", "ip6tables"] as const;

/** A lab that is closed when the test (or, from a `before` hook's context, the suite) ends. */
export async function labFor(t: Pick<TestContext, "after">, options?: LabOptions): Promise<Lab> {
  const lab = await createLab(options);
  t.after(() => lab.close());
  return lab;
}

/** ClusterIP DNS as in a cluster: a resolver pod `coredns` (routed) on port 5353 behind 10.96.0.10 and fd00:10:96::a, port 53. */
export async function clusterDns(lab: Lab): Promise<{ pod: string; port: number; v4: string; v6: string }> {
  const pod = await lab.addPod({ name: "coredns", namespace: "kube-system", listed: false });
  const [v4, v6, port] = ["10.96.0.10", "fd00:10:96::a", 5353];
  await lab.service({ address: v4, port: 53, target: pod.v4 as string, targetPort: port });
  await lab.service({ address: v6, port: 53, target: pod.v6 as string, targetPort: port });
  lab.setResolvers([v4, v6]);
  return { pod: pod.name, port, v4, v6 };
}
