// The states of RFC 9293 §3.3.2. LISTEN is TcpListeners, CLOSED is absence from the table.

export const SYN_SENT = 0;
export const SYN_RECEIVED = 1;
export const ESTABLISHED = 2;
export const FIN_WAIT_1 = 3;
export const FIN_WAIT_2 = 4;
export const CLOSE_WAIT = 5;
export const CLOSING = 6;
export const LAST_ACK = 7;
export const TIME_WAIT = 8;
export const CLOSED = 9;

export type TcpState = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9;

/** For messages and tests. */
export const TCP_STATE_NAMES = [
  "SYN-SENT",
  "SYN-RECEIVED",
  "ESTABLISHED",
  "FIN-WAIT-1",
  "FIN-WAIT-2",
  "CLOSE-WAIT",
  "CLOSING",
  "LAST-ACK",
  "TIME-WAIT",
  "CLOSED",
] as const;

/** Whether the remote end may still send data. */
export function canReceive(state: TcpState): boolean {
  return state === ESTABLISHED || state === FIN_WAIT_1 || state === FIN_WAIT_2;
}

/** Whether data (or a FIN not yet acknowledged) of ours may go out. */
export function canSend(state: TcpState): boolean {
  return (
    state === ESTABLISHED || state === CLOSE_WAIT || state === FIN_WAIT_1 || state === CLOSING || state === LAST_ACK
  );
}

/** The state after our FIN was sent for the first time. */
export function afterFinSent(state: TcpState): TcpState {
  return state === CLOSE_WAIT ? LAST_ACK : FIN_WAIT_1;
}

/** The state after our FIN was acknowledged. */
export function afterFinAcknowledged(state: TcpState): TcpState {
  if (state === FIN_WAIT_1) return FIN_WAIT_2;
  if (state === CLOSING) return TIME_WAIT;
  return state === LAST_ACK ? CLOSED : state;
}

/** The state after the remote end's FIN was received in order. */
export function afterFinReceived(state: TcpState): TcpState {
  if (state === ESTABLISHED) return CLOSE_WAIT;
  if (state === FIN_WAIT_1) return CLOSING;
  return state === FIN_WAIT_2 ? TIME_WAIT : state;
}
