/**
 * What clients ask before anything else: versions, settings, policies. All fixed but for the kind of storage.
 * @module
 */

import type { RouteTable } from '../call.ts'
import { type Call, ok, type Reply } from '../call.ts'
import { dateView } from '../view.ts'

const VERSION = '5.4.6'
const RULES = { mustContainCharacters: ['none'], numberOfCharacteristicsToEnforce: 0 }
const ALGORITHMS = Object.freeze({
  fileKeyAlgorithms: [
    { version: 'RSA-4096/AES-256-GCM', description: 'RSA-4096 and AES-256-GCM', status: 'REQUIRED' },
    { version: 'A', description: 'RSA-2048 and AES-256-GCM', status: 'DISCOURAGED' },
  ],
  keyPairAlgorithms: [
    { version: 'RSA-4096', description: 'RSA-4096', status: 'REQUIRED' },
    { version: 'A', description: 'RSA-2048', status: 'DISCOURAGED' },
  ],
})

/** An answer for logged-in users that needs nothing from the request. */
const forUsers =
  (json: (call: Call) => unknown) =>
  (call: Call): Reply => {
    void call.user
    return ok(json(call))
  }

export const infoRoutes: RouteTable = {
  'GET /v4/public/software/version': () =>
    ok({
      restApiVersion: VERSION,
      sdsServerVersion: VERSION,
      buildDate: '2025-01-01T00:00:00Z',
      isDracoonCloud: false,
    }),
  'GET /v4/public/system/info': ({ app }) =>
    ok({
      languageDefault: 'en-US',
      hideLoginInputFields: false,
      s3Hosts: app.blobs.hosts,
      s3EnforceDirectUpload: app.blobs.isDirectOnly,
      useS3Storage: app.storage === 's3',
      authMethods: [{ name: 'basic', isEnabled: true, priority: 1 }],
    }),
  'GET /v4/public/system/info/auth/openid': () => ok({ items: [] }),
  'GET /v4/public/system/info/auth/ad': () => ok({ items: [] }),
  'GET /v4/public/time': ({ app }) => ok({ time: dateView(app.now()) }),
  'GET /v4/config/info/general': forUsers(({ app }) => ({
    sharePasswordSmsEnabled: false,
    cryptoEnabled: true,
    emailNotificationButtonEnabled: false,
    eulaEnabled: false,
    weakPasswordEnabled: true,
    useS3Storage: app.storage === 's3',
    s3TagsEnabled: false,
    homeRoomsActive: false,
    mediaServerEnabled: false,
  })),
  'GET /v4/config/info/defaults': forUsers(() => ({
    languageDefault: 'en-US',
    downloadShareDefaultExpirationPeriod: 0,
    uploadShareDefaultExpirationPeriod: 0,
    fileDefaultExpirationPeriod: 0,
  })),
  'GET /v4/config/info/infrastructure': forUsers(({ app }) => ({
    smsConfigEnabled: false,
    mediaServerConfigEnabled: false,
    s3EnforceDirectUpload: app.blobs.isDirectOnly,
    isDracoonCloud: false,
  })),
  'GET /v4/config/info/policies/algorithms': forUsers(() => ALGORITHMS),
  // A second name that some clients use for it.
  'GET /v4/config/info/algorithms': forUsers(() => ALGORITHMS),
  'GET /v4/config/info/policies/passwords': forUsers(() => ({
    sharesPasswordPolicies: { characterRules: RULES, minLength: 1, rejectUserInfo: false },
    encryptionPasswordPolicies: { characterRules: RULES, minLength: 1, rejectUserInfo: false },
  })),
  'GET /v4/config/info/policies/classifications': forUsers(() => ({})),
  'GET /v4/config/info/s3_tags': forUsers(() => ({ items: [] })),
}
